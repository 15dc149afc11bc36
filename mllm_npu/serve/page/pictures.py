"""Pictures of the page: taken from people and models within limits, kept as files for a while."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import time
import uuid
from pathlib import Path

from PIL import Image, ImageOps

from mllm_npu.errors import MllmNpuError
from mllm_npu.serve.page.conversation import Picture
from mllm_npu.serve.pictures_out import encode_picture

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 64 * 1024 * 1024
LONGEST_EDGE = 2048
"""Pixels; larger pictures are sent scaled down, so that many turns fit into one request."""
KEEP_SECONDS = 24 * 3600.0
_SHORT_BYTES = 4 * 1024 * 1024
"""A longer file is packed anew, with some loss."""
_SMALL_EDGE = 160
"""A picture smaller than this is shown enlarged."""
_PLAIN = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""Formats that are sent as they came, where nothing is to be changed."""
_FORMATS = (*_PLAIN, "BMP", "GIF", "TIFF")
_TYPES = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}
_ORIENTATION = 0x0112
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError),
    Image.DecompressionBombError,
)


class PictureError(MllmNpuError):
    """A file that is no picture the page takes."""


class PictureStore:
    """Keeps pictures in a folder, each once, under a name that follows from what is in it.

    Args:
        folder: of the files.
        max_bytes: of a file that is taken.
        max_pixels: of a picture that is taken.
        keep_seconds: a file that was not used for so long is removed by ``sweep``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self.folder = folder
        self._max_bytes, self._max_pixels = max_bytes, max_pixels
        self._keep_seconds = keep_seconds

    def take_file(self, path: Path) -> Picture:
        """Take a file that a person gave.

        Raises:
            PictureError: it is too long, or no picture.
        """
        try:
            with path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise PictureError(str(error.strerror)) from error
        return self.take_bytes(data)

    def take_url(self, url: str) -> Picture:
        """Take a data URL that a model's server gave.

        Raises:
            PictureError: it is none, or holds no picture.
        """
        head, _, packed = url.partition(",")
        if not head.startswith("data:image/") or not head.endswith(";base64"):
            raise PictureError("a data URL of a picture is wanted")
        try:
            return self.take_bytes(base64.b64decode(packed, validate=True))
        except binascii.Error as error:
            raise PictureError(str(error)) from error

    def take_bytes(self, data: bytes) -> Picture:
        """Take an encoded picture; it is decoded, so that what is broken shows at once.

        Raises:
            PictureError: it is too long, has too many pixels, or cannot be decoded.
        """
        if len(data) > self._max_bytes:
            raise PictureError(f"more than {self._max_bytes // 2**20} MB")
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                width, height = opened.size
                if width * height > self._max_pixels:
                    raise PictureError(f"{width}x{height}")
                opened.load()
                suffix = _PLAIN.get(opened.format or "")
                short = len(data) <= _SHORT_BYTES
                if suffix and short and _is_plain(opened):
                    return self._keep(data, suffix, opened)
                return self.add(_to_rgb(opened), lossy=opened.format == "JPEG" or not short)
        except _BROKEN as error:
            raise PictureError(str(error)) from error

    def add(self, picture: Image.Image, *, lossy: bool = False) -> Picture:
        """Keep a picture that was made here."""
        if max(picture.size) > LONGEST_EDGE:
            picture = picture.copy()
            picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
            lossy = True
        suffix = ".jpg" if lossy else ".png"
        return self._keep(encode_picture(picture, "jpeg" if lossy else "png"), suffix, picture)

    def open(self, picture: Picture) -> Image.Image:
        """The pixels of a picture, RGB.

        Raises:
            PictureError: its file has been removed.
        """
        try:
            with Image.open(picture.path) as opened:
                return opened.convert("RGB")
        except OSError as error:
            raise PictureError(str(error.strerror)) from error

    def read(self, picture: Picture) -> bytes:
        """The bytes of a picture's file; it counts as used.

        Raises:
            PictureError: it has been removed.
        """
        try:
            for path in {picture.path, picture.shown}:
                os.utime(path)
            return picture.path.read_bytes()
        except OSError as error:
            raise PictureError(str(error.strerror)) from error

    def data_url(self, picture: Picture) -> str:
        """A picture as the API takes it.

        Raises:
            PictureError: its file has been removed.
        """
        packed = base64.b64encode(self.read(picture)).decode("ascii")
        return f"data:image/{_TYPES[picture.path.suffix]};base64,{packed}"

    def save(self, name: str, data: bytes) -> Path:
        """Keep another file for a download, where nobody guesses its path."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        path = folder / name
        path.write_bytes(data)
        return path

    def sweep(self) -> int:
        """Remove files that were not used for long; gives their number."""
        oldest = time.time() - self._keep_seconds
        old = [path for path in self.folder.rglob("*") if path.is_file()]
        old = [path for path in old if path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _keep(self, data: bytes, suffix: str, picture: Image.Image) -> Picture:
        name = hashlib.sha256(data).hexdigest()[:32]
        path = self.folder / f"{name}{suffix}"
        _write(path, data)
        shown, edge = path, max(picture.size)
        if edge < _SMALL_EDGE:
            factor = -(-_SMALL_EDGE // edge)
            size = (picture.width * factor, picture.height * factor)
            shown = self.folder / f"{name}-large.png"
            large = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
            _write(shown, encode_picture(large))
        return Picture(path=path, shown=shown, width=picture.width, height=picture.height)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    part.write_bytes(data)
    part.replace(path)


def _is_plain(picture: Image.Image) -> bool:
    """Whether nothing about it needs to be changed before it is sent."""
    upright = picture.getexif().get(_ORIENTATION, 1) == 1
    still = getattr(picture, "n_frames", 1) == 1
    fits = max(picture.size) <= LONGEST_EDGE
    return upright and still and fits and picture.mode in ("L", "RGB")


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Upright, on white where it is transparent."""
    upright = ImageOps.exif_transpose(picture)
    if "A" in upright.getbands() or "transparency" in upright.info:
        with_alpha = upright.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return upright.convert("RGB")
