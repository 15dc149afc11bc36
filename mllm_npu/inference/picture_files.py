"""Pictures a person names on the command line: opened, and saved under a name that is checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.processing.grounding import Box, draw_boxes
from mllm_npu.processing.image_transform import open_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def open_pictures(paths: Sequence[Path]) -> list[Image.Image]:
    """Decode picture files.

    Raises:
        RequestError: one is not there.
        DataError: one is no picture.
    """
    for path in paths:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise RequestError(f"the picture {path} was asked for and {what}. Check the path.")
    return [open_picture(path) for path in paths]


def check_name(path: Path) -> None:
    """Refuse a name under which no picture can be saved, before anything is computed.

    Raises:
        RequestError: its ending is none of a picture, or its folder cannot be written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise RequestError(f"--out {path} has no picture ending. Use one of {', '.join(ENDINGS)}.")
    if path.is_dir():
        raise RequestError(f"--out {path} is a folder. Give the name of a file.")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made or written; it is not made yet.

    Raises:
        RequestError: what it lies in is no folder, or is not open to this user.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RequestError(
            f"pictures were to be saved in {folder}, and {there} cannot be written. "
            "Choose another --out."
        )


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Save under a temporary name, then rename, so that a picture is whole or not there.

    Raises:
        RequestError: the disk refuses.
    """
    partial = path.with_name(f".{path.name}.partial")
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(partial, format=kind)
        partial.replace(path)
    except OSError as error:
        raise RequestError(
            f"the picture {path} cannot be saved: {error}. Choose another --out."
        ) from error
    finally:
        if partial.is_file():
            partial.unlink()
    return path


def save_pictures(pictures: Sequence[Image.Image], path: Path) -> list[Path]:
    """Save drawn pictures; several get a number before the ending."""
    if len(pictures) == 1:
        return [save_picture(pictures[0], path)]
    return [
        save_picture(picture, path.with_stem(f"{path.stem}-{number}"))
        for number, picture in enumerate(pictures, start=1)
    ]


def save_boxes(pictures: Sequence[Image.Image], boxes: Sequence[Box], path: Path) -> Path | None:
    """Save the last picture that was shown with the boxes a reply names in it.

    Args:
        pictures: of the question.
        boxes: of the reply.
        path: of a drawn picture; the marked one gets ``-boxes`` before the ending.

    Returns:
        Where it is; None where there is nothing to mark.
    """
    if not pictures or not boxes:
        return None
    return save_picture(draw_boxes(pictures[-1], boxes), path.with_stem(f"{path.stem}-boxes"))
