"""Picture source: find the pictures that rows refer to, and nothing outside of their folder."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.stored_picture import MAX_BYTES, StoredPicture, store_picture
from mllm_npu.errors import SkipSample


class PictureSource:
    """Loads pictures by path, from data URLs, or from bytes that came with the row.

    Args:
        folder: where paths begin; no path may leave it, also not by a link.
    """

    def __init__(self, *, folder: str | Path) -> None:
        self.folder = os.path.realpath(folder)

    def load(self, reference: Any) -> StoredPicture:
        """Load what a row names.

        Args:
            reference: a path, a ``data:`` URL, bytes, or a mapping with ``bytes``, ``path`` or
                ``url``.

        Raises:
            SkipSample: if it is not to be had; network addresses are never fetched.
        """
        match reference:
            case bytes():
                return store_picture(reference)
            case {"bytes": bytes(data)}:
                return store_picture(data)
            case {"path": str(path)} | {"url": str(path)}:
                return self.load(path)
            case str() if reference.startswith("data:"):
                return store_picture(_decode_url(reference))
            case str() if "://" in reference[:12]:
                raise SkipSample(f"picture on the network: {reference[:200]}")
            case str() if reference.strip():
                return store_picture(self._read(reference))
        raise SkipSample("picture missing")

    def _read(self, name: str) -> bytes:
        if "\0" in name:
            raise SkipSample("picture path broken")
        path = os.path.realpath(os.path.join(self.folder, name))  # name may be absolute
        if os.path.commonpath([path, self.folder]) != self.folder:
            raise SkipSample(f"picture outside the images folder: {name}")
        try:
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode):
                raise SkipSample(f"picture is no file: {name}")
            if state.st_size > MAX_BYTES:
                raise SkipSample(f"picture file too large: {name}")
            return Path(path).read_bytes()
        except OSError as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else "cannot be read"
            raise SkipSample(f"picture file {reason}: {name}") from error


def _decode_url(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise SkipSample(f"data URL is not base64: {url[:40]}")
    return decode_base64(body)


def decode_base64(text: str) -> bytes:
    """Bytes of a base64 text.

    Raises:
        SkipSample: if it is not one.
    """
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SkipSample("picture is not base64") from error


def first_of(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the entries that is there and holds something."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "" and value != []:
            return value
    return None
