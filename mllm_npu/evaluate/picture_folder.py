"""The pictures of a folder or a zip by name, in order; pixels are read when they are needed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.benchmark_pictures import PictureFiles
from mllm_npu.processing.raster import StoredPicture

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_LAYOUT = f"pictures, in folders or not ({' '.join(sorted(ENDINGS))})"


def find_pictures(path: str | Path) -> list[str]:
    """Names of the pictures below a folder or in a zip, in order; no file is opened.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    files = BenchmarkFiles(path, layout=_LAYOUT)
    found = [name for name in files.find("*") if _is_picture(name)] if files.has("*") else []
    if not found:
        raise files.lacking("there is no picture")
    return found


def read_pictures(path: str | Path) -> list[tuple[str, StoredPicture]]:
    """The same pictures with their names; of each file only the head is read now.

    Raises:
        DataError: as ``find_pictures``; or one is no picture.
    """
    found = find_pictures(path)
    pictures = PictureFiles(BenchmarkFiles(path, layout=_LAYOUT))
    return [(name, pictures.open(name, f"{path}")) for name in found]


def _is_picture(name: str) -> bool:
    parts = PurePosixPath(name)
    return parts.suffix.lower() in ENDINGS and not parts.name.startswith(".")
