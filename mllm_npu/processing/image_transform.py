"""Open pictures safely, stretch them, and turn them into uint8 tensors and back.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from mllm_npu.errors import DataError

MAX_PIXELS = 64 * 1024 * 1024
"""Largest picture that is decoded unless a caller says otherwise; 192 MiB of RGB."""

# Formats that are pictures and decode in this process: no PostScript, no PDF, no external program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# Sizes are checked here before anything is decoded; Pillow's warning would be a second message.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError)


def open_picture(data: bytes | str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture as people see it: turned upright, on white where transparent, in RGB.

    Args:
        data: the encoded bytes, or the path of a file.
        max_pixels: width times height above which the picture is refused before it is decoded.

    Returns:
        A loaded RGB picture.

    Raises:
        DataError: There is no such file, it is no picture, it is broken, or it is too large.
    """
    name = f"{len(data)} bytes" if isinstance(data, bytes) else f"file {str(data)!r}"
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with Image.open(stream, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height <= max_pixels:
                return _to_rgb(ImageOps.exif_transpose(picture))
    except _BOMBS as error:
        raise DataError(f"The picture in the {name} has too many pixels: {error}") from error
    except (*_BROKEN, struct.error, zlib.error) as error:
        raise DataError(
            f"A picture was asked for, the {name} cannot be decoded ({error}). "
            f"Give a complete file in one of {', '.join(_FORMATS)}."
        ) from error
    raise DataError(
        f"A picture of {width}x{height} was given, at most {max_pixels} pixels are allowed. "
        "Make it smaller, or raise max_pixels if it comes from a source you trust."
    )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        picture.load()
        return picture.copy()
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255, which turns nearly everything white.
        grey = np.asarray(picture).astype(np.int64)
        scaled = grey // 257 if grey.max(initial=0) > 255 else grey
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        # The colours under transparent pixels are arbitrary, so they must not be seen.
        clear = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return picture.convert("RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """Pixels of a picture, uint8 [3, H, W]; a view of rows of RGB triples, so not contiguous."""
    rgb = picture if picture.mode == "RGB" else _to_rgb(picture)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def resize(pixels: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Stretch pixels with torch's antialiased bicubic, within 2 of 255 levels of Pillow's.

    Args:
        pixels: uint8 [3, H, W] or [I, 3, H, W].
        size: edge of a square, or (height, width).

    Returns:
        uint8 of the same number of dimensions; the input itself where it already has that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    batched = pixels if pixels.dim() == 4 else pixels[None]
    stretched = F.interpolate(batched, size=(height, width), mode="bicubic", antialias=True)
    return stretched if pixels.dim() == 4 else stretched[0]


def stretch(picture: Image.Image, size: int | tuple[int, int], *, exact: bool = True) -> Tensor:
    """Stretch a picture with antialiased bicubic.

    Args:
        picture: of any mode.
        size: edge of a square, or (height, width).
        exact: Pillow's result, the same on every machine and what released checkpoints were trained
            on. False: torch's, 3 to 4 times faster and at most 2 of 255 levels away.

    Returns:
        uint8 [3, H, W].
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not exact or picture.size == (width, height):
        return resize(to_tensor(picture), (height, width))
    rgb = picture if picture.mode == "RGB" else _to_rgb(picture)
    return to_tensor(rgb.resize((width, height), Image.Resampling.BICUBIC))


def to_picture(pixels: Tensor) -> Image.Image:
    """RGB picture of uint8 pixels [3, H, W] on any device."""
    return Image.fromarray(pixels.detach().cpu().permute(1, 2, 0).contiguous().numpy())
