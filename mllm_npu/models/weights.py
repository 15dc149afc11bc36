"""Save weights as one folder of safetensors; load any known layout, strict and never twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from mllm_npu.errors import WeightsError
from mllm_npu.models.grown_rows import RowGrowth
from mllm_npu.models.own_rows import from_own_rows
from mllm_npu.models.weight_files import ALIASES
from mllm_npu.models.weight_values import Value, check_shape, gather

WEIGHTS_FILE = "model.safetensors"
_ADAPTER_MARK, _BASE_MARK = ".lora_", ".base_layer."
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsReport:
    """What became of the names of a checkpoint and of a model.

    Args:
        loaded: names of the model that got a value.
        missing: names of the model the checkpoint lacks.
        unexpected: names of the checkpoint the model lacks.
        reshaped: loaded names whose values lay in another shape of the same size, or were widened
            with zeros.
        merged: loaded names into which low-rank updates were folded.
        replaced: names that several sources hold; the last one counts.
        unused: names that are known and not needed: computed tables, parts the model does not have.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        always = ("loaded", "missing", "unexpected")
        parts = [
            f"{len(names)} {entry.name}{_some(names)}"
            for entry in fields(self)
            if (names := getattr(self, entry.name)) or entry.name in always
        ]
        return "; ".join(parts)


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
        save_file(values, partial, metadata={"format": "pt", ALIASES: json.dumps(aliases)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise WeightsError(f"The weights cannot be written to {target}: {error}") from error
    return target


def load_weights(
    model: nn.Module,
    sources: str | Path | Sequence[str | Path],
    *,
    strict: bool = True,
    lora_alpha: float | None = None,
    device: torch.device | None = None,
    grow: bool = False,
) -> WeightsReport:
    """Fill a model from files or folders of weights, of any layout of `weight_layouts`.

    Parameters on the meta device are replaced by the values as they are read, one at a time, and
    tied parameters stay tied; others are copied into. Values of the model's own type stay pages of
    the file until they are changed (see `weight_files`). Buffers that are computed rather than
    saved are computed again. Of a sharded parameter a rank reads its own rows and no others.
    Low-rank updates that are to be trained are not looked for: what they stand on is filled.

    Args:
        model: the model to fill, in place; it may be a part alone.
        sources: one or several; together they hold the model's values, and where two hold the same
            one the later counts. ``folder@vision_encoder`` takes that part alone.
        strict: refuse missing and unexpected names; without it they are only reported.
        lora_alpha: alpha of low-rank updates among the values, which are folded in; None takes it
            from an ``adapter_config.json`` beside them.
        grow: make the rows a vocabulary lacks by the rule of its language model.
        device: where the rows of sharded parameters go; None: where their ranks compute.

    Raises:
        WeightsError: nothing to read, another shape, names that do not fit, not one name in common,
            or low-rank updates of unknown alpha. The model is as it was then.
    """
    paths = [Path(path) for path in ([sources] if isinstance(sources, str | Path) else sources)]
    names = _plain_names(model)
    slots = {plain: slot for plain, (_, slot) in names.items()}
    gathered = gather(paths, slots, kind=type(model).__name__, lora_alpha=lora_alpha)
    values = {name: value for name, value in gathered.values.items() if name in slots}
    growths = _row_growths(model) if grow else {}
    # By what is behind a name: a head that is the table may be stored under its own name.
    by_slot = {id(slots[name]): growth for name, growth in growths.items() if name in slots}
    for name, value in values.items():
        value.growth = by_slot.get(id(slots[name]))
    unexpected = tuple(sorted((set(gathered.values) | set(gathered.stray)) - set(slots)))
    report = WeightsReport(
        loaded=tuple(sorted(values)),
        missing=_missing(values, slots),
        unexpected=unexpected,
        reshaped=tuple(sorted(n for n in values if check_shape(n, values[n], slots[n]))),
        merged=tuple(sorted(name for name in values if values[name].update is not None)),
        replaced=tuple(sorted(gathered.replaced)),
        unused=tuple(sorted(gathered.unused)),
    )
    if not values or (strict and (report.missing or report.unexpected)):
        raise WeightsError(
            f"The weights in {', '.join(map(str, paths))} do not fit {type(model).__name__}: "
            f"{report}. Give the weights of this model, or compose the model they belong to."
        )
    placed: dict[int, nn.Parameter] = {}
    for name in report.loaded:
        _place(model, names[name][0], values[name], placed, device)
    _tie(model, dict(names.values()), placed)
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


def _plain_names(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Names without adapters -> names of the model, with the parameter or buffer behind them.

    Tied ones stand under each of their names; low-rank updates are left out.
    """
    return {
        name.replace(_BASE_MARK, "."): (name, slot)
        for name, slot in model.state_dict(keep_vars=True).items()
        if _ADAPTER_MARK not in name
    }


def _row_growths(model: nn.Module) -> dict[str, RowGrowth]:
    """How the rows of vocabularies grow, by name without adapters."""
    return {
        f"{where}.{name}".lstrip(".").replace(_BASE_MARK, "."): growth
        for where, part in model.named_modules()
        if hasattr(part, "row_growths")
        for name, growth in part.row_growths().items()
    }


def _missing(values: Mapping[str, Value], slots: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names without a value; a tied parameter has one as soon as any of its names has."""
    filled = {id(slots[name]) for name in values}
    return tuple(
        sorted(
            name for name, slot in slots.items() if name not in values and id(slot) not in filled
        )
    )


def fill_named(model: nn.Module, read: Callable[[str, Tensor], Tensor | None]) -> None:
    """Fill a model by its own names, low-rank updates included; tied parameters stay tied.

    Args:
        model: in place; it may be without memory.
        read: gives the value of a name, of the slot's shape, or None to leave it as it is.
    """
    slots = dict(model.state_dict(keep_vars=True))
    placed: dict[int, nn.Parameter] = {}
    for name, slot in slots.items():
        if id(slot) not in placed:
            value = read(name, slot)
            if value is not None:
                # Updates are folded in at the precision they were trained in.
                exact = _ADAPTER_MARK in name
                _put(model, name, value if exact else value.to(slot.dtype), placed)
    _tie(model, slots, placed)
    restore_buffers(model)


def _place(
    model: nn.Module,
    name: str,
    stored: Value,
    placed: dict[int, nn.Parameter],
    device: torch.device | None,
) -> None:
    slot = _slot(model, name)
    if id(slot) in placed:
        return
    value = stored.read(slot)
    if isinstance(slot, DTensor):
        value = from_own_rows(value, slot, device)
    _put(model, name, value, placed)


def _put(model: nn.Module, name: str, value: Tensor, placed: dict[int, nn.Parameter]) -> None:
    slot = _slot(model, name)
    if not slot.is_meta:
        with torch.no_grad():
            slot.copy_(value)
        return
    module_name, _, short_name = name.rpartition(".")
    module = model.get_submodule(module_name)
    if isinstance(slot, nn.Parameter):
        placed[id(slot)] = nn.Parameter(value, requires_grad=slot.requires_grad)
        setattr(module, short_name, placed[id(slot)])
    else:
        setattr(module, short_name, value)


def _slot(model: nn.Module, name: str) -> Tensor:
    module_name, _, short_name = name.rpartition(".")
    return getattr(model.get_submodule(module_name), short_name)


def _tie(model: nn.Module, slots: Mapping[str, Tensor], placed: Mapping[int, nn.Parameter]) -> None:
    """Give every name of a replaced parameter the same new one."""
    for name, slot in slots.items():
        if id(slot) in placed:
            module_name, _, short_name = name.rpartition(".")
            setattr(model.get_submodule(module_name), short_name, placed[id(slot)])


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f" ({shown}{', ...' if len(names) > _SHOWN else ''})" if names else ""
