"""How close a drawn picture is to the one it should be: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mllm_npu.errors import ConfigError
from mllm_npu.processing.image_transform import stretch

_SMALLEST_WINDOW = 3
_WINDOW = 7
"""Edge in pixels of the squares SSIM compares; smaller pictures use what fits."""


def compare_pictures(truth: Image.Image, drawn: Image.Image) -> dict[str, float]:
    """PSNR in dB and SSIM of a drawn picture.

    Args:
        truth: stretched to the size of the drawn one.
        drawn: RGB, at least 3 pixels on each edge.

    Returns:
        ``psnr`` (infinite for equal pictures) and ``ssim`` (1 for equal pictures).

    Raises:
        ConfigError: scikit-image is not installed.

    Source: SSIM (Wang et al. 2004), both from scikit-image.
    """
    try:
        from skimage.metrics import (  # noqa: PLC0415 - slow import
            peak_signal_noise_ratio,
            structural_similarity,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Pictures are compared by scikit-image, which is not installed. Install it: "
            "pip install 'mllm-npu[eval]'"
        ) from error
    width, height = drawn.size
    expected = stretch(truth, (height, width)).permute(1, 2, 0).numpy()
    found = np.asarray(drawn.convert("RGB"))
    smallest = min(width, height, _WINDOW)
    window = max(_SMALLEST_WINDOW, smallest - (smallest + 1) % 2)
    with np.errstate(divide="ignore"):
        psnr = peak_signal_noise_ratio(expected, found, data_range=255)
    ssim = structural_similarity(expected, found, data_range=255, channel_axis=2, win_size=window)
    return {"psnr": float(psnr), "ssim": float(ssim)}
