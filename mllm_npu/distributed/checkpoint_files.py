"""Files of a checkpoint: safetensors per rank and an index in JSON, for torch's distributed format.

torch's own format keeps its index as a pickle, and its safetensors reader opens the files of all
ranks on each of them. Here the index says where every piece lies, so a rank opens what it needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

INDEX_FILE = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPiece:
    """Where a piece of a tensor lies.

    Args:
        relative_path: its file.
    """

    relative_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShape:
    """What a checkpoint holds under a name.

    Args:
        shape: of the whole tensor.
        dtype: of its elements.
    """

    shape: torch.Size
    dtype: torch.dtype


class ShardWriter(HuggingFaceStorageWriter):
    """Writes the shards of each rank; the rank that coordinates ends with index and commit.

    Args:
        folder: new; every rank writes into it.
        commit: called on the coordinating rank once all files are on the disk.
    """

    def __init__(self, folder: Path, *, commit: Callable[[], None]) -> None:
        super().__init__(path=str(folder), save_distributed=True)
        self._folder = folder
        self._commit = commit

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """See StorageWriter."""
        files = {
            (result.index.fqn, tuple(result.index.offset or ())): result.storage_data.relative_path
            for rank in results
            for result in rank
        }
        tensors: dict[str, Any] = {}
        for name, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            tensors[name] = {
                "dtype": str(stored.properties.dtype).removeprefix("torch."),
                "shape": list(stored.size),
                "pieces": [
                    {
                        "file": files[name, tuple(piece.offsets)],
                        "offsets": list(piece.offsets),
                        "sizes": list(piece.sizes),
                    }
                    for piece in stored.chunks
                    if piece.sizes.numel()
                ],
            }
        text = json.dumps({"tensors": tensors})
        (self._folder / INDEX_FILE).write_text(text, encoding="utf-8")
        self._commit()


class ShardReader(HuggingFaceStorageReader):
    """Reads what a ``ShardWriter`` wrote, on any number of ranks.

    Args:
        folder: of the checkpoint.
        names: what is wanted of it.
    """

    def __init__(self, folder: Path, names: Mapping[str, Any]) -> None:
        super().__init__(path=str(folder))
        self._folder = folder
        self._names = names

    def read_metadata(self) -> Metadata:
        """See StorageReader."""
        tensors = read_index(self._folder)
        known: dict[str, TensorStorageMetadata] = {}
        places: dict[MetadataIndex, StoredPiece] = {}
        for name in self._names:
            stored = tensors[name]
            chunks = []
            for piece in stored["pieces"]:
                offsets = torch.Size(piece["offsets"])
                chunks.append(ChunkStorageMetadata(offsets, torch.Size(piece["sizes"])))
                place = MetadataIndex(name, offsets)
                places[place] = StoredPiece(relative_path=str(self._folder / piece["file"]))
            known[name] = TensorStorageMetadata(
                properties=TensorProperties(dtype=getattr(torch, stored["dtype"])),
                size=torch.Size(stored["shape"]),
                chunks=chunks,
            )
        metadata = Metadata(state_dict_metadata=dict(known), storage_data=places)
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a checkpoint: for each name dtype, shape and pieces."""
    found = (folder / INDEX_FILE).stat()
    return _parse_index(folder / INDEX_FILE, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _parse_index(file: Path, written: int, size: int) -> dict[str, Any]:
    """Parse once what is asked tensor by tensor; that of a large run has many megabytes."""
    return json.loads(file.read_text(encoding="utf-8"))["tensors"]


def stored_shapes(folder: Path) -> dict[str, StoredShape]:
    """What a checkpoint holds, by name."""
    return {
        name: StoredShape(shape=torch.Size(stored["shape"]), dtype=getattr(torch, stored["dtype"]))
        for name, stored in read_index(folder).items()
    }


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder, is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
