"""Save and load weights: one folder of safetensors, strict, whole, never twice in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mllm_npu.errors import WeightsError

WEIGHTS_FILE = "model.safetensors"
_ALIASES = "aliases"
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What became of the names of a checkpoint and of a model.

    Args:
        loaded: names of the model that got a value.
        missing: names of the model the checkpoint lacks.
        unexpected: names of the checkpoint the model lacks.
        reshaped: loaded names whose values lay in another shape of the same size.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __str__(self) -> str:
        counts = {
            name: getattr(self, name) for name in ("loaded", "missing", "unexpected", "reshaped")
        }
        return "; ".join(f"{len(names)} {what}{_some(names)}" for what, names in counts.items())


def save_weights(folder: str | Path, model: nn.Module) -> Path:
    """Write all parameters and persistent buffers to ``folder``/model.safetensors.

    The file is written under another name, flushed to the disk and renamed, so that it is whole or
    not there.

    Raises:
        WeightsError: a parameter has no memory (meta), or the disk refuses.
    """
    values: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[tuple[object, ...], str] = {}
    for name, value in model.state_dict().items():
        if value.is_meta:
            raise WeightsError(
                f"{name!r} has no memory (it is on the meta device); load weights before saving."
            )
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in first_names:
            aliases[name] = first_names[place]
            continue
        first_names[place] = name
        values[name] = value.detach().cpu().contiguous()
    target = Path(folder) / WEIGHTS_FILE
    partial = target.with_name(f"{WEIGHTS_FILE}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(values, partial, metadata={"format": "pt", _ALIASES: json.dumps(aliases)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"The weights cannot be written to {target}: {error}") from error
    return target


def load_weights(model: nn.Module, folder: str | Path, *, strict: bool = True) -> WeightsReport:
    """Fill a model from a folder of safetensors (or one such file).

    Parameters on the meta device are replaced by the values as they are read, one at a time, and
    tied parameters stay tied; others are copied into. Buffers that are computed rather than saved
    are computed again.

    Args:
        model: the model to fill, in place.
        folder: holds ``*.safetensors``.
        strict: refuse missing and unexpected names; without it they are only reported.

    Raises:
        WeightsError: nothing to read, another shape, names that do not fit, or not one name in
            common.
    """
    sources = _open(Path(folder))
    slots = _slots(model)
    missing = _missing(model, sources, slots)
    unexpected = tuple(sorted(set(sources) - set(slots)))
    loaded = tuple(sorted(set(sources) & set(slots)))
    reshaped = tuple(
        name for name in loaded if _check_shape(name, sources[name], slots[name], Path(folder))
    )
    report = WeightsReport(loaded=loaded, missing=missing, unexpected=unexpected, reshaped=reshaped)
    if not loaded or (strict and (missing or unexpected)):
        raise WeightsError(
            f"The weights in {folder} do not fit {type(model).__name__}: {report}. "
            "Give the weights of this model, or compose the model they belong to."
        )
    placed: dict[int, nn.Parameter] = {}
    for name in loaded:
        _place(model, name, sources[name], placed)
    _tie(model, slots, placed)
    restore_buffers(model)
    return report


def restore_buffers(model: nn.Module) -> None:
    """Compute the unsaved buffers of a model that was built on the meta device."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            _restore_transformers_buffers(part)


def _restore_transformers_buffers(part: PreTrainedModel) -> None:
    """Let transformers compute its buffers; parameters are marked as loaded and stay."""
    hollow = [module for module in part.modules() if _hollow_buffers(module)]
    if not hollow:
        return
    parameters = list(part.parameters())
    device = next((p.device for p in parameters if not p.is_meta), torch.device("cpu"))
    for parameter in parameters:
        parameter._is_hf_initialized = True
    for module in hollow:
        for name in _hollow_buffers(module):
            setattr(module, name, torch.empty_like(getattr(module, name), device=device))
        with torch.no_grad():
            part._init_weights(module)
    for parameter in parameters:
        del parameter._is_hf_initialized


def _hollow_buffers(module: nn.Module) -> list[str]:
    own = module.named_buffers(recurse=False)
    return [
        name
        for name, buffer in own
        if buffer.is_meta and name in module._non_persistent_buffers_set
    ]


class _Source:
    """One value of a checkpoint, read when it is asked for."""

    def __init__(self, *, file: Path, key: str, shape: tuple[int, ...], kind: str) -> None:
        self.file, self.key, self.shape, self.kind = file, key, shape, kind

    @property
    def is_float(self) -> bool:
        """Whether its values are floating point numbers; names as safetensors writes them."""
        return self.kind.startswith(("F", "BF"))

    def read(self, device: torch.device) -> Tensor:
        with safe_open(self.file, framework="pt", device=str(device)) as opened:
            return opened.get_tensor(self.key)


def _open(folder: Path) -> dict[str, _Source]:
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]
    sources: dict[str, _Source] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a dict
                    part = opened.get_slice(key)
                    sources[key] = _Source(
                        file=file, key=key, shape=tuple(part.get_shape()), kind=part.get_dtype()
                    )
                aliases = json.loads((opened.metadata() or {}).get(_ALIASES, "{}"))
        except (OSError, SafetensorError, ValueError) as error:
            raise WeightsError(
                f"{file} cannot be read as safetensors: {error}. Give a folder that training or "
                "save_pretrained has written whole."
            ) from error
        sources.update(
            {name: sources[original] for name, original in aliases.items() if original in sources}
        )
    if not sources:
        raise WeightsError(
            f"No weights were found in {folder}; give a folder that holds *.safetensors files."
        )
    return sources


def _slots(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, tied ones under each of their names."""
    return dict(model.state_dict(keep_vars=True))


def _missing(
    model: nn.Module, sources: Mapping[str, _Source], slots: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Names without a value; a tied parameter has one as soon as any of its names has."""
    filled = {id(slots[name]) for name in sources if name in slots}
    return tuple(
        sorted(
            name for name, slot in slots.items() if name not in sources and id(slot) not in filled
        )
    )


def _check_shape(name: str, source: _Source, slot: Tensor, folder: Path) -> bool:
    """Whether the value must be reshaped.

    Raises:
        WeightsError: the sizes differ, or whole numbers stand for floating point ones.
    """
    if source.is_float != slot.is_floating_point():
        raise WeightsError(
            f"{name!r} holds {source.kind} in {folder} and {slot.dtype} in the model; these are "
            "weights of another kind, such as quantised ones. Convert them first."
        )
    if source.shape == tuple(slot.shape):
        return False
    if torch.Size(source.shape).numel() != slot.numel():
        raise WeightsError(
            f"{name!r} has shape {list(source.shape)} in {folder} and {list(slot.shape)} in the "
            "model; these are weights of another model."
        )
    return True


def _place(model: nn.Module, name: str, source: _Source, placed: dict[int, nn.Parameter]) -> None:
    module_name, _, short_name = name.rpartition(".")
    module = model.get_submodule(module_name)
    slot = getattr(module, short_name)
    if not slot.is_meta:
        with torch.no_grad():
            slot.copy_(source.read(torch.device("cpu")).view(slot.shape))
        return
    if id(slot) in placed:
        return
    value = source.read(torch.device("cpu")).view(slot.shape).to(slot.dtype)
    if isinstance(slot, nn.Parameter):
        placed[id(slot)] = nn.Parameter(value, requires_grad=slot.requires_grad)
        setattr(module, short_name, placed[id(slot)])
    else:
        setattr(module, short_name, value)


def _tie(model: nn.Module, slots: Mapping[str, Tensor], placed: Mapping[int, nn.Parameter]) -> None:
    """Give every name of a replaced parameter the same new one."""
    for name, slot in slots.items():
        if id(slot) in placed:
            module_name, _, short_name = name.rpartition(".")
            setattr(model.get_submodule(module_name), short_name, placed[id(slot)])


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f" ({shown}{', ...' if len(names) > _SHOWN else ''})" if names else ""
