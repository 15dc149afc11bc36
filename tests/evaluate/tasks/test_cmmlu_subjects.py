"""Groups of CMMLU as its script has them."""

from collections import Counter

from mllm_npu.evaluate.tasks.cmmlu_subjects import (
    CATEGORIES,
    SUBJECTS,
    category_of,
    is_about_china,
)


def test_there_are_67_subjects_of_different_names():
    assert len(SUBJECTS) == len({chinese for chinese, *_ in SUBJECTS.values()}) == 67
    assert list(SUBJECTS) == sorted(SUBJECTS)


def test_every_subject_is_in_one_category():
    below = [subcategory for members in CATEGORIES.values() for subcategory in members]
    assert len(below) == len(set(below))
    assert {subcategory for _, subcategory, *_ in SUBJECTS.values()} == set(below)
    sizes = Counter(map(category_of, SUBJECTS))
    assert sizes == {"STEM": 17, "Humanities": 13, "Social Science": 22, "Other": 15}


def test_some_are_about_china_as_well():
    assert sum(map(is_about_china, SUBJECTS)) == 15
    assert is_about_china("modern_chinese")
    assert category_of("modern_chinese") == "Social Science"
    assert not is_about_china("marxist_theory")
