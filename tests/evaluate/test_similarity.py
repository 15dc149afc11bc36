"""PSNR and SSIM against values worked out by hand."""

import math
import sys

import numpy as np
import pytest
from PIL import Image

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.similarity import compare_pictures


def picture(pixels):
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 200, (16, 16, 3))


def test_equal_pictures(noise):
    assert compare_pictures(picture(noise), picture(noise)) == {"psnr": math.inf, "ssim": 1.0}


def test_psnr_of_a_constant_error(noise):
    found = compare_pictures(picture(noise), picture(noise + 10))
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / 100))
    assert 0.9 < found["ssim"] < 1


def test_ssim_is_that_of_its_paper(noise):
    """One window: means, variances and covariance of all its pixels."""
    truth, drawn = noise[:7, :7].astype(float), noise[7:14, :7].astype(float)
    values = []
    for channel in range(3):
        x, y = truth[..., channel].ravel(), drawn[..., channel].ravel()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        cov = np.cov(x, y)
        values.append(
            (2 * x.mean() * y.mean() + c1)
            * (2 * cov[0, 1] + c2)
            / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2))
        )
    found = compare_pictures(picture(truth), picture(drawn))["ssim"]
    assert found == pytest.approx(np.mean(values))


def test_the_truth_is_stretched_to_what_was_drawn():
    truth = Image.new("RGB", (40, 20), (9, 99, 199))
    drawn = Image.new("RGB", (8, 8), (9, 99, 199))
    assert compare_pictures(truth, drawn)["psnr"] == math.inf


@pytest.mark.parametrize("size", [3, 4, 6, 8])
def test_small_pictures(size):
    drawn = Image.new("L", (size, size), 7)
    assert compare_pictures(drawn, drawn)["ssim"] == pytest.approx(1)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    grey = Image.new("RGB", (8, 8), "grey")
    with pytest.raises(ConfigError, match=r"mllm-npu\[eval\]"):
        compare_pictures(grey, grey)
