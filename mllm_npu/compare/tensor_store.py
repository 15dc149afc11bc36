"""Tensors by name on the host: in memory up to a limit, beyond it in files, read when asked for."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mllm_npu.errors import DataError

_GIB = 1 << 30
_KINDS: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.complex128: "C128",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What safetensors calls the dtypes."""


class TensorStore:
    """Holds copies of tensors; close it, or use it in a ``with``, and its files are gone.

    Args:
        memory_gib: of what stays in memory; what is more waits in a folder for temporary files, in
            files of that size.
    """

    def __init__(self, *, memory_gib: float) -> None:
        self._limit = memory_gib * _GIB
        self._held: dict[str, Tensor] = {}
        self._bytes = 0
        self._shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._files: dict[str, Path] = {}
        self._opened: dict[Path, Any] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def open(cls, path: Path) -> tuple[Self, dict[str, str]]:
        """What ``write`` has written, and the texts beside it; no tensor is read yet.

        Raises:
            DataError: it is no such file.
        """
        store = cls(memory_gib=0)
        try:
            handle: Any = safe_open(path, framework="pt")
            store._opened[path] = handle
            store._files = dict.fromkeys(handle.keys(), path)
            return store, dict(handle.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as safetensors: {error}. Give a file that was written "
                "with --record and copied whole."
            ) from error

    @property
    def num_files(self) -> int:
        """Files that hold what does not stay in memory."""
        return len(set(self._files.values()))

    def put(self, name: str, tensor: Tensor) -> None:
        """Keep a copy of a tensor of any device."""
        kept = tensor.detach().to("cpu", copy=True).contiguous()
        self._shapes[name] = (kept.dtype, tuple(kept.shape))
        self._held[name] = kept
        self._bytes += kept.nbytes
        if self._bytes > self._limit:
            self._spill()

    def get(self, name: str) -> Tensor:
        """The tensor, on the host.

        Raises:
            KeyError: there is none of that name.
        """
        if name in self._held:
            return self._held[name]
        path = self._files[name]
        if path not in self._opened:
            self._opened[path] = safe_open(path, framework="pt")
        return self._opened[path].get_tensor(name)

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._files

    def __iter__(self) -> Iterator[str]:
        yield from self._files
        yield from self._held

    def write(self, path: Path, texts: Mapping[str, str]) -> None:
        """Write all as one safetensors file, one tensor at a time; it appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                self._write_all(file, texts)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True) if partial.parent.is_dir() else None
            raise DataError(
                f"{path} cannot be written: {error}. Give a file in a folder with room."
            ) from error

    def close(self) -> None:
        """Forget all; what lies in a file of ``open`` stays there."""
        self._held, self._shapes, self._files, self._opened = {}, {}, {}, {}
        self._bytes = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spill(self) -> None:
        """Move what is in memory to files of bounded size."""
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="parity-")
            path = Path(self._folder.name) / f"part-{self.num_files:05d}.safetensors"
            save_file(self._held, path)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"What side A gave does not fit into memory_gib={self._limit / _GIB:g}, and not "
                f"into {tempfile.gettempdir()}: {error}. Raise --memory-gib, or set TMPDIR to a "
                "folder with room."
            ) from error
        self._files |= dict.fromkeys(self._held, path)
        self._held, self._bytes = {}, 0

    def _write_all(self, file: BinaryIO, texts: Mapping[str, str]) -> None:
        header: dict[str, Any] = {"__metadata__": dict(texts)}
        end = 0
        # Wide elements first, so that each begins at a multiple of its size.
        names = sorted(self, key=lambda name: (-self._shape(name)[0].itemsize, name))
        for name in names:
            dtype, shape = self._shape(name)
            begin, end = end, end + dtype.itemsize * torch.Size(shape).numel()
            header[name] = {
                "dtype": _KINDS[dtype],
                "shape": list(shape),
                "data_offsets": [begin, end],
            }
        encoded = json.dumps(header, ensure_ascii=False).encode()
        encoded += b" " * (-len(encoded) % 8)
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in names:
            tensor = self.get(name)
            real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            file.write(real.reshape(-1).view(torch.uint8).numpy().data)

    def _shape(self, name: str) -> tuple[torch.dtype, tuple[int, ...]]:
        if name not in self._shapes:
            tensor = self.get(name)
            self._shapes[name] = (tensor.dtype, tuple(tensor.shape))
        return self._shapes[name]
