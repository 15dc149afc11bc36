"""Open files of weights of any layout: what is in them, and each value when it is asked for.

Safetensors and torch files alike are mapped, not read: a value takes memory when it is touched,
once, as pages of the file. A file must therefore not be written over while a model that came from
it lives; writing beside it and renaming, as `mllm_npu.models.weights.save_weights` does, is safe.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mllm_npu.errors import WeightsError

ALIASES = "aliases"
"""Key of the metadata that says which names share a value."""
_TORCH_ENDINGS = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model", "module")
_PIPELINE = "model_index.json"
_PIPELINE_PARTS = ("unet", "vae")
_POINTER = b"version https://git-lfs"
_GLOBAL = re.compile(r"(?:Unsupported global: )?GLOBAL (\S+)")
_KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class StoredValue(ABC):
    """One value of a file.

    Attributes:
        file: where it lies.
        key: its name there.
        shape: its sizes.
        dtype: its type; None where torch has none of that name.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @abstractmethod
    def read(self) -> Tensor:
        """The value on the CPU."""

    @abstractmethod
    def read_rows(self, begin: int, end: int) -> Tensor:
        """Some rows of the value, in memory of their own; the rest is not touched."""


class _SafeValue(StoredValue):
    def __init__(self, file: Path, key: str, shape: tuple[int, ...], kind: str) -> None:
        self.file, self.key, self.shape, self.dtype = file, key, shape, _KINDS.get(kind)

    def read(self) -> Tensor:
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_tensor(self.key)

    def read_rows(self, begin: int, end: int) -> Tensor:
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_slice(self.key)[begin:end].clone()


class _TorchValue(StoredValue):
    def __init__(self, file: Path, key: str, value: Tensor) -> None:
        self.file, self.key, self.shape, self.dtype = file, key, tuple(value.shape), value.dtype
        self._value = value

    def read(self) -> Tensor:
        return self._value

    def read_rows(self, begin: int, end: int) -> Tensor:
        return self._value[begin:end].clone()


def open_values(path: Path) -> dict[str, StoredValue]:
    """Values of a file or a folder by their names there; none is read yet.

    A folder may hold safetensors or torch files, whole or sharded, or a pipeline of diffusers,
    whose parts ``unet`` and ``vae`` are opened with that prefix.

    Raises:
        WeightsError: nothing to read, a file that is cut off or no such file, or a pickle that
            holds more than tensors; none of its code is run.
    """
    if path.is_dir() and (path / _PIPELINE).is_file():
        found = {
            f"{part}.{key}": value
            for part in _PIPELINE_PARTS
            if (path / part).is_dir()
            for key, value in open_values(path / part).items()
        }
    else:
        found = {}
        for file in _files(path):
            found.update(_open_torch(file) if file.suffix in _TORCH_ENDINGS else _open_safe(file))
    if not found:
        raise WeightsError(
            f"No weights were found in {path}; give a file or folder with *.safetensors, *.bin, "
            "*.pt or *.pth."
        )
    return found


def adapter_scale(path: Path) -> float | None:
    """Factor alpha / r of low-rank updates, where peft's ``adapter_config.json`` says it."""
    file = (path if path.is_dir() else path.parent) / "adapter_config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return float(values["lora_alpha"]) / float(values["r"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def _files(path: Path) -> list[Path]:
    """Files of a folder that hold the values: safetensors before torch, the listed shards alone."""
    if not path.is_dir():
        return [path]
    for ending in (".safetensors", *_TORCH_ENDINGS):
        listed = {
            path / name
            for index in path.glob(f"*{ending}.index.json")
            for name in _shards(index)
            if name.endswith(ending)
        }
        lacking = sorted(file.name for file in listed if not file.is_file())
        if lacking:
            raise WeightsError(
                f"{path} lacks {len(lacking)} of {len(listed)} shards its index names: "
                f"{', '.join(lacking[:4])}. Fetch them again."
            )
        files = sorted(listed) or sorted(path.glob(f"*{ending}"))
        # Half precision copies of the same values.
        whole = [file for file in files if ".fp16" not in file.suffixes]
        if files:
            return whole or files
    return []


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{index} is no index of shards: {error}. Fetch it again.") from error


def _open_safe(file: Path) -> dict[str, StoredValue]:
    try:
        with safe_open(file, framework="pt") as opened:
            found: dict[str, StoredValue] = {}
            for key in opened.keys():  # noqa: SIM118 - not a dict
                part = opened.get_slice(key)
                found[key] = _SafeValue(file, key, tuple(part.get_shape()), part.get_dtype())
            aliases = json.loads((opened.metadata() or {}).get(ALIASES, "{}"))
    except Exception as error:
        # The reader has errors of its own and of Python's; whichever it is, the file is of no use.
        raise WeightsError(_unreadable(file, "safetensors", error)) from error
    found.update({name: found[first] for name, first in aliases.items() if first in found})
    return found


def _open_torch(file: Path) -> dict[str, StoredValue]:
    try:
        try:
            loaded = torch.load(file, mmap=True, map_location="cpu", weights_only=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            # The format before torch 1.6 cannot be mapped.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(_unreadable(file, "a torch file of tensors", error)) from error
    return {
        name: _TorchValue(file, name, value)
        for name, value in _tensors(loaded)
        if isinstance(value, Tensor)
    }


def _tensors(loaded: object) -> Iterator[tuple[str, object]]:
    """Names and values of a state dict, out of what it is wrapped in."""
    if not isinstance(loaded, Mapping):
        return
    for wrapper in _WRAPPERS:
        inner = loaded.get(wrapper)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            yield from _tensors(inner)
            return
    yield from loaded.items()


def _unreadable(file: Path, kind: str, error: Exception) -> str:
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError:
        head = b""
    if head.startswith(_POINTER):
        return f"{file} is a pointer of git-lfs, not the file. Fetch it: git lfs pull"
    if head.lstrip()[:1] == b"<":
        return f"{file} is a web page, not weights. Download the file itself."
    said = " ".join(str(error).split())
    code = _GLOBAL.search(said)
    if code:
        return (
            f"{file} is a pickle that holds more than tensors ({code[1]}), and it was not run. "
            "Save a state dict, or convert it to safetensors where you trust it."
        )
    said = said.rpartition("WeightsUnpickler error:")[2].strip()[:200]
    return (
        f"{file} cannot be read as {kind}: {said}. Give a file that was written and copied whole."
    )
