import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.worlds.digit_scans import load_scans, split_scans, upsample
from mllm_npu.evaluate.judge_digits import DigitJudge, to_scans


@pytest.fixture(scope="module")
def scans():
    raw, labels = load_scans()
    pictures = [Image.fromarray(pixels).convert("RGB") for pixels in upsample(raw)]
    splits = split_scans(labels)
    return {
        name: ([pictures[number] for number in ids], labels[ids].tolist())
        for name, ids in splits.items()
    }


@pytest.fixture(scope="module")
def judge(scans):
    pictures, digits = scans["train"]
    return DigitJudge(pictures=pictures, digits=digits)


def test_pictures_come_back_to_the_form_of_scans():
    raw, _ = load_scans()
    pictures = [Image.fromarray(pixels).convert("RGB") for pixels in upsample(raw[:50])]
    shrunk = to_scans(pictures)
    assert shrunk.shape == (50, 64)
    assert shrunk.max() <= 16
    assert np.abs(shrunk - raw[:50].reshape(50, 64)).mean() < 1.0


def test_areas_are_averaged():
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[0, :2] = 255
    [scan] = to_scans([Image.fromarray(pixels).convert("RGB")])
    assert scan[0] == pytest.approx(8.0)
    assert scan[1:].max() == 0.0


def test_the_judge_knows_held_out_scans(judge, scans):
    pictures, digits = scans["test"]
    right = [seen == digit for seen, digit in zip(judge.judge(pictures), digits, strict=True)]
    assert len(right) >= 360
    assert sum(right) / len(right) >= 0.98


def test_other_sizes_are_judged_too(judge, scans):
    pictures, _ = scans["test"]
    large = [picture.resize((32, 32), Image.Resampling.NEAREST) for picture in pictures[:40]]
    assert judge.judge(large) == judge.judge(pictures[:40])


def test_no_pictures_no_judgement(judge):
    assert judge.judge([]) == []
