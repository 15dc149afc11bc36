import json

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.real_digits import Redrawn, Scans, read_scans


def test_splits_are_disjoint_and_complete(digits_world):
    splits = json.loads((digits_world / "splits.json").read_text())
    scans, _ = read_scans(digits_world)
    ids = [number for numbers in splits.values() for number in numbers]
    assert len(ids) == len(set(ids))
    assert {name: len(split.digits) for name, split in scans.items()} == {
        name: len(numbers) for name, numbers in splits.items()
    }


def test_scans_are_pictures_with_their_digit(digits_world):
    scans, judge = read_scans(digits_world)
    assert {picture.mode for picture in scans["test"].pictures} == {"RGB"}
    train = scans["train"]
    right = [a == b for a, b in zip(judge.judge(train.pictures), train.digits, strict=True)]
    assert sum(right) / len(right) > 0.99


def test_some_or_all_scans(digits_world):
    scans, _ = read_scans(digits_world)
    assert len(scans["test"].first(3).pictures) == 3
    assert scans["test"].first(None).digits == scans["test"].digits


@pytest.mark.parametrize("text", [None, "{", "[]", '{"train": []}'])
def test_missing_or_broken_splits_are_named(tmp_path, text):
    if text is not None:
        (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=r"splits\.json.*mllm-npu data digits"):
        read_scans(tmp_path)


def test_scores_of_redrawn_scans():
    scans = Scans(pictures=[], digits=[1, 2, 3])
    redrawn = Redrawn(scans=scans, pictures=[], seen=[1, 7, 3], errors=[0.0] * 3)
    assert redrawn.scores == [1.0, 0.0, 1.0]
