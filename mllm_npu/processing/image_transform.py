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
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from mllm_npu.errors import DataError, PictureTooLargeError
from mllm_npu.processing.raster import Picture, Raster, decoded, to_pillow

MAX_PIXELS = 64 * 1024 * 1024
"""Largest picture that is decoded unless a caller says otherwise; 192 MiB of RGB."""

_STRETCH_INTO = torch.ops.aten._upsample_bicubic2d_aa.out
"""What ``interpolate`` calls, which itself has no ``out``."""

_FIRST_ON_ITS_SIDE = 5
"""EXIF orientations from 5 on turn a picture by a quarter."""

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
        raise PictureTooLargeError(f"The picture in the {name}: {error}") from error
    except (*_BROKEN, struct.error, zlib.error) as error:
        raise DataError(
            f"A picture was asked for, the {name} cannot be decoded ({error}). "
            f"Give a complete file in one of {', '.join(_FORMATS)}."
        ) from error
    raise PictureTooLargeError(
        f"A picture of {width}x{height} was given, at most {max_pixels} pixels are allowed. "
        "Make it smaller, or raise max_pixels if it comes from a source you trust."
    )


def read_orientation(data: bytes) -> int:
    """EXIF orientation of an encoded picture, 1..8; 1 is upright, as is one that says nothing.

    Raises:
        DataError: the header or its EXIF segment is broken.
    """
    return _read_head(data)[2]


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture as people see it, from its header.

    Args:
        data: all of it, or enough of its beginning.

    Raises:
        DataError: it is no picture, or its header is broken.
    """
    width, height, orientation = _read_head(data)
    return (height, width) if orientation >= _FIRST_ON_ITS_SIDE else (width, height)


def _read_head(data: bytes) -> tuple[int, int, int]:
    """Width, height and EXIF orientation as they are stored."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            # Pillow turns the size of a TIFF on its own.
            stored = orientation in range(1, 9) and picture.format != "TIFF"
            return *picture.size, orientation if stored else 1
    except (*_BOMBS, *_BROKEN, struct.error) as error:
        raise DataError(f"The head of {len(data)} bytes is no picture's: {error}.") from error


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


def to_tensor(picture: Picture) -> Tensor:
    """Pixels of a picture, uint8 [3, H, W]; a view of rows of RGB triples, so not contiguous.

    It shares the memory of a raster, and must not be changed.
    """
    picture = decoded(picture)
    if isinstance(picture, Raster):
        return torch.from_numpy(picture.pixels).permute(2, 0, 1)
    rgb = picture if picture.mode == "RGB" else _to_rgb(picture)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def resize(pixels: Tensor, size: int | tuple[int, int], *, out: Tensor | None = None) -> Tensor:
    """Stretch pixels with torch's antialiased bicubic, within 2 of 255 levels of Pillow's.

    The memory order of the result is that of the input: planes, or rows of RGB triples.

    Args:
        pixels: uint8 [3, H, W] or [I, 3, H, W].
        size: edge of a square, or (height, width).
        out: takes the result, uint8 of the same number of dimensions, and is then given back.

    Returns:
        uint8 of the same number of dimensions; the input itself where it already has that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if pixels.shape[-2] == height and pixels.shape[-1] == width:
        return pixels if out is None else out.copy_(pixels)
    if pixels.dim() == 3:
        into = None if out is None else _as_batch(out)
        return resize(_as_batch(pixels), (height, width), out=into)[0]
    if out is not None and _are_triples(pixels) and _are_triples(out):
        return _STRETCH_INTO(pixels, [height, width], False, out=out)
    stretched = F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return stretched if out is None else out.copy_(stretched)


def _are_triples(pixels: Tensor) -> bool:
    """Whether a batch lies in memory as rows of RGB triples and as nothing else.

    torch takes the order of the input for that of ``out``, and writes beyond it where it is not.
    """
    return not pixels.is_contiguous() and pixels.is_contiguous(memory_format=torch.channels_last)


def _as_batch(pixels: Tensor) -> Tensor:
    """A batch of one; torch is up to twice as fast where its strides say rows of RGB triples."""
    return pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)


def stretch(
    picture: Picture,
    size: int | tuple[int, int],
    *,
    exact: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """Stretch a picture with antialiased bicubic.

    Args:
        picture: of any mode.
        size: edge of a square, or (height, width).
        exact: Pillow's result, the same on every machine and what released checkpoints were trained
            on. False: torch's, 3 to 4 times faster and at most 2 of 255 levels away.
        out: takes the result, uint8 [1, 3, H, W].

    Returns:
        uint8 [3, H, W]; rows of RGB triples in memory.
    """
    height, width = (size, size) if isinstance(size, int) else size
    picture = decoded(picture)
    if not exact and isinstance(picture, Raster):
        batch = torch.from_numpy(picture.pixels)[None].permute(0, 3, 1, 2)
        return resize(batch, (height, width), out=out)[0]
    pillow = to_pillow(picture)
    rgb = pillow if pillow.mode == "RGB" else _to_rgb(pillow)
    if exact:
        pixels = to_tensor(rgb.resize((width, height), Image.Resampling.BICUBIC))
    else:
        pixels = resize(to_tensor(rgb), (height, width))
    return pixels if out is None else out.copy_(pixels)[0]


def to_picture(pixels: Tensor) -> Image.Image:
    """RGB picture of uint8 pixels [3, H, W] on any device."""
    return Image.fromarray(pixels.detach().cpu().permute(1, 2, 0).contiguous().numpy())
