"""Groups of C-Eval, held against the tables that its authors published."""

from collections import Counter

import pytest

from mllm_npu.evaluate.tasks.ceval_subjects import HARD, SUBJECTS

CATEGORIES = ("STEM", "Social Science", "Humanities", "Other")


def test_there_are_52_subjects_of_different_names():
    assert len(SUBJECTS) == len({chinese for chinese, _ in SUBJECTS.values()}) == 52
    assert {category for _, category in SUBJECTS.values()} == set(CATEGORIES)


def test_eight_subjects_are_hard():
    assert len(HARD) == 8
    assert set(SUBJECTS) >= HARD


@pytest.mark.parametrize(
    ("means", "published"),
    [
        ((67.1, 77.6, 64.5, 67.8), 68.7),
        ((65.2, 74.7, 62.5, 64.7), 66.4),
        ((39.1, 53.0, 47.7, 42.7), 44.3),
        ((36.7, 55.8, 47.7, 43.0), 44.0),
        ((33.3, 48.3, 41.3, 38.0), 38.9),
        ((32.6, 41.2, 34.1, 33.0), 34.7),
    ],
)
def test_published_averages_are_those_over_subjects(means, published):
    sizes = Counter(category for _, category in SUBJECTS.values())
    total = sum(sizes[category] * mean for category, mean in zip(CATEGORIES, means, strict=True))
    # Both sides are rounded to a tenth.
    assert total / 52 == pytest.approx(published, abs=0.1)
    assert sum(means) / 4 != pytest.approx(published, abs=0.3)
