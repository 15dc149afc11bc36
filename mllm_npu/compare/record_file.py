"""A side as one file: what it gave, and the packs it was given, without a pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.compare.recording import Recording
from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.errors import DataError

FORMAT = 1
_TEXT = "parity"
_PACK, _BUFFER = "pack", "buffer"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a comparison needs of side A.

    Args:
        recording: what it gave.
        packs: what it was given, on the host.
        buffers: what its objective measured before the first step, by name.
    """

    recording: Recording
    packs: Sequence[Batch]
    buffers: Mapping[str, Tensor]


def write_record(path: Path, record: Record) -> None:
    """Write a side; the tensors of its packs join those of its recording.

    Raises:
        DataError: it cannot be written.
    """
    store = record.recording.store
    values = []
    for number, pack in enumerate(record.packs):
        plain: dict[str, Any] = {}
        for entry in dataclasses.fields(pack):
            value = getattr(pack, entry.name)
            if isinstance(value, Tensor):
                store.put(f"{_PACK}/{number}/{entry.name}", value)
            else:
                plain[entry.name] = value
        values.append(plain)
    for name, buffer in record.buffers.items():
        store.put(f"{_BUFFER}/{name}", buffer)
    told = {"format": FORMAT, "packs": values, **record.recording.to_json()}
    store.write(path, {_TEXT: json.dumps(told)})


def read_record(path: Path) -> Record:
    """Read what ``write_record`` wrote; tensors are read as they are asked for.

    Raises:
        DataError: it is another file, or of another version.
    """
    store, texts = TensorStore.open(path)
    try:
        values = json.loads(texts[_TEXT])
        found = values["format"]
        if found == FORMAT:
            recording = Recording(store=store)
            recording.load_json(values)
            packs = [_read_pack(store, n, plain) for n, plain in enumerate(values["packs"])]
            buffers = {
                name.removeprefix(f"{_BUFFER}/"): store.get(name)
                for name in store
                if name.startswith(f"{_BUFFER}/")
            }
            return Record(recording=recording, packs=packs, buffers=buffers)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no side of a comparison ({type(error).__name__}: {error}). Give a file "
            "that was written with --record."
        ) from error
    raise DataError(
        f"{path} has format {found}, this version reads {FORMAT}. Record it again with this one."
    )


def _read_pack(store: TensorStore, number: int, plain: Mapping[str, Any]) -> Batch:
    values: dict[str, Any] = {key: _tupled(value) for key, value in plain.items()}
    mark = f"{_PACK}/{number}/"
    for name in store:
        if name.startswith(mark):
            values[name.removeprefix(mark)] = store.get(name)
    return Batch(**values)


def _tupled(value: Any) -> Any:
    """JSON knows lists alone; packs have tuples."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
