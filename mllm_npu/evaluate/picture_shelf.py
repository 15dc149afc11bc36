"""Small copies of the pictures of records, each once by its content, for people to look at."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.processing.raster import Picture, to_pillow

_EDGE = 256
"""Pixels of the longer edge of a copy."""

_FEW_PIXELS = 128 * 128
"""A picture of no more stays as it is, to the pixel."""

_QUALITY = 85
_NAME = re.compile(r"[0-9a-f]{24}\.(png|jpg)")


class PictureShelf:
    """A folder of small pictures.

    Args:
        folder: it is made when the first picture comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()

    def keep(self, picture: Picture) -> str | None:
        """Name of a picture's copy, which is there then; None for one that cannot be decoded.

        Raises:
            DataError: the copy cannot be written.
        """
        try:
            pixels = to_pillow(picture)
        except DataError:
            return None
        data, suffix = encode_small(pixels)
        name = f"{hashlib.sha256(data).hexdigest()[:24]}.{suffix}"
        path = self.folder / name
        if name not in self._names and not path.exists():
            partial = path.with_name(f"{name}.partial")
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(data)
                partial.replace(path)
            except OSError as error:
                raise DataError(
                    f"The picture {path} cannot be written: {error}. Make its folder writable, "
                    "with room."
                ) from error
        self._names.add(name)
        return name

    def drop_others(self) -> None:
        """Remove copies from before that were not kept this time; other files stay."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if is_copy(path.name) and path.name not in self._names:
                path.unlink()


def is_copy(name: str) -> bool:
    """Whether a name is one that a shelf gives."""
    return _NAME.fullmatch(name) is not None


def encode_small(picture: Image.Image) -> tuple[bytes, str]:
    """A picture for a page, at most 256 pixels wide and high, and the end of its file's name."""
    file = io.BytesIO()
    small = picture.convert("RGB")
    if small.width * small.height <= _FEW_PIXELS:
        small.save(file, format="PNG")
        return file.getvalue(), "png"
    if max(small.size) > _EDGE:
        # A strip that is many times as long as it is high keeps a pixel of height.
        small.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
    small.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue(), "jpg"
