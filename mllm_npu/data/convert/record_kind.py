"""Record kind: turn one object of a JSON file or one line of a table into the members of a row."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.errors import SkipSample

Record = Mapping[str, Any]


class RecordKind(ABC):
    """What the entries of a record mean.

    Attributes:
        name: as ``--format`` calls it.
        aliases: other names that ``--format`` takes.
        summary: one line for lists.
    """

    name: str
    aliases: tuple[str, ...] = ()
    summary: str

    @abstractmethod
    def recognises(self, record: Record) -> bool:
        """Whether the record looks like this kind."""

    @abstractmethod
    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """Members of the row.

        Raises:
            SkipSample: if it cannot be converted; the message is ``reason`` or ``reason: detail``.
        """


class PictureMembers:
    """Numbers the pictures of a row as ``0.jpg``, ``1.png``, ...; equal ones are stored once.

    Args:
        pictures: loads them.
    """

    def __init__(self, *, pictures: PictureSource) -> None:
        self._pictures = pictures
        self._names: dict[bytes, str] = {}

    def add(self, reference: Any) -> str:
        """Load a picture and give the name of its member.

        Raises:
            SkipSample: as ``PictureSource.load``.
        """
        stored = self._pictures.load(reference)
        default = f"{len(self._names)}.{stored.extension}"
        return self._names.setdefault(stored.data, default)

    def members(self) -> dict[str, bytes]:
        """All pictures by member name, in the order in which they came."""
        return {name: data for data, name in self._names.items()}


def encode_json(values: Record, *, record: Record | None = None) -> bytes:
    """The ``json`` member of a row, with the record's own id under ``meta``.

    Raises:
        SkipSample: if it holds what JSON cannot say.
    """
    identity = (record or {}).get("id")
    if isinstance(identity, str | int) and identity != "":
        values = {**values, "meta": {"id": identity}}
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False, default=str).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise SkipSample("json cannot be written") from error
