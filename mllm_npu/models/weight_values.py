"""Gather the values of a model from several sources, and read each as its slot needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mllm_npu.errors import WeightsError
from mllm_npu.models.grown_rows import RowGrowth
from mllm_npu.models.own_rows import own_rows
from mllm_npu.models.weight_files import StoredValue, adapter_scale, open_values
from mllm_npu.models.weight_layouts import Place, examples, translate

_TABLES = ("embed", "lm_head", "wte")
"""What the names of a vocabulary's tables hold."""
_WIDENED = "unet.conv_in.weight"
"""The layer that takes more channels in a decoder that edits; what is new starts at zero."""


@dataclass(slots=True, kw_only=True)
class Update:
    """A low-rank update of a weight: factor * up @ down.

    Args:
        down: A, [r, in].
        up: B, [out, r].
        factor: alpha / r, from the file beside it; None where that is not known.
    """

    down: StoredValue | None = None
    up: StoredValue | None = None
    factor: float | None = None

    def read(self, rows: tuple[int, int] | None = None) -> Tensor:
        """What is added to the weight or to some of its rows, float32."""
        if self.down is None or self.up is None or self.factor is None:
            raise WeightsError("A low-rank update was read before it was complete.")
        up = self.up.read() if rows is None else self.up.read_rows(*rows)
        return self.factor * (up.float() @ self.down.read().float())


@dataclass(slots=True, kw_only=True)
class Value:
    """What goes into one slot of a model.

    Args:
        stored: the value itself.
        update: what is added to it.
        growth: how rows are made that it lacks; None where it must have all.
    """

    stored: StoredValue
    update: Update | None = None
    growth: RowGrowth | None = None

    def read(self, slot: Tensor) -> Tensor:
        """The value in the shape and type of its slot, on the CPU; a sharded slot's own rows."""
        if isinstance(slot, DTensor):
            return self._read_rows(slot, *own_rows(slot))
        value = self.stored.read()
        if self.update is not None:
            value = value.float() + self.update.read()
        if value.numel() == slot.numel():
            return value.view(slot.shape).to(slot.dtype)
        if self.growth is not None:
            return self.growth.grow(value, slot.shape[0]).to(slot.dtype)
        wider = torch.zeros(slot.shape, dtype=slot.dtype)
        wider[:, : value.shape[1]] = value
        return wider

    def _read_rows(self, slot: DTensor, begin: int, end: int) -> Tensor:
        if self.stored.shape != tuple(slot.shape):
            # Stored in another shape, which is rare and small: read whole, then cut.
            return self.read(torch.empty(slot.shape, dtype=slot.dtype, device="meta"))[begin:end]
        value = self.stored.read_rows(begin, end)
        if self.update is not None:
            value = value.float() + self.update.read((begin, end))
        return value.to(slot.dtype)


@dataclass(slots=True, kw_only=True)
class Gathered:
    """Values of several sources by name of the model.

    Args:
        values: what there is, also for names the model lacks.
        replaced: names that more than one source holds.
        unused: stored names that are known and not needed.
        stray: names of low-rank updates whose weight no source holds.
    """

    values: dict[str, Value] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)


def gather(
    paths: Sequence[Path],
    slots: Mapping[str, Tensor],
    *,
    kind: str,
    lora_alpha: float | None,
) -> Gathered:
    """Open sources and give every value its name in the model; later sources win.

    Args:
        paths: files and folders, each with ``@part`` behind it where only that part is wanted.
        slots: names of the model.
        kind: name of the model's class, for messages.
        lora_alpha: of low-rank updates; None: their own file must say it.

    Raises:
        WeightsError: a source that cannot be read or has nothing for the model, or an update that
            is not complete.
    """
    gathered, updates = Gathered(), dict[str, Update]()
    for source in paths:
        path, _ = split_part(source)
        stored, places = _open(source, slots, kind)
        for key, place in places.items():
            if place.role == "unused":
                gathered.unused.append(key)
            elif place.role == "value":
                if place.name in gathered.values:
                    gathered.replaced.add(place.name)
                gathered.values[place.name] = Value(stored=stored[key])
            else:
                update = updates.setdefault(place.name, Update())
                update.factor = adapter_scale(path) if update.factor is None else update.factor
                if place.role == "lora_A":
                    update.down = stored[key]
                else:
                    update.up = stored[key]
    for name, update in updates.items():
        if name not in gathered.values:
            gathered.stray.append(f"{name} (low-rank update)")
            continue
        _complete(name, update, gathered.values[name].stored, lora_alpha)
        gathered.values[name].update = update
    return gathered


def _open(
    source: Path, slots: Mapping[str, Tensor], kind: str
) -> tuple[dict[str, StoredValue], dict[str, Place]]:
    """Values of a source and where they go, of which some must go into the model."""
    path, part = split_part(source)
    stored = open_values(path)
    places = translate(stored, slots)
    if part:
        places = {key: place for key, place in places.items() if _is_in(place.name, part)}
    if not any(place.name in slots for place in places.values() if place.role != "unused"):
        raise WeightsError(
            f"{source} holds nothing for {kind}: its names are {examples(stored)}, the model's "
            f"{examples(slots)}. Give weights of this model in a layout that is known (mllm-npu, "
            "SEED-X, Qwen-VL, Hugging Face, diffusers)."
        )
    return stored, places


def split_part(source: str | Path) -> tuple[Path, str]:
    """A source and the part of it that is wanted: ``folder@vision_encoder``; "" for all of it."""
    text = str(source)
    path, mark, part = text.rpartition("@")
    return (Path(path), part) if mark and not Path(text).exists() else (Path(text), "")


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def check_shape(name: str, value: Value, slot: Tensor) -> bool:
    """Whether the value must be reshaped.

    Raises:
        WeightsError: the sizes differ, or whole numbers stand for floating point ones.
    """
    stored, shape = value.stored, tuple(slot.shape)
    is_float = stored.dtype is not None and stored.dtype.is_floating_point
    if is_float != slot.is_floating_point():
        raise WeightsError(
            f"{name!r} holds {stored.dtype or 'a type torch does not know'} in {stored.file} and "
            f"{slot.dtype} in the model; these are weights of another kind, such as quantised "
            "ones. Convert them first."
        )
    if stored.shape == shape:
        return False
    if torch.Size(stored.shape).numel() == slot.numel() or _widens(name, stored.shape, shape):
        return True
    if value.growth is not None and stored.shape[1:] == shape[1:] and stored.shape[0] < shape[0]:
        return True
    advice = "these are weights of another model."
    if any(table in name for table in _TABLES) and stored.shape[1:] == shape[1:]:
        advice = (
            f"the vocabularies differ by {abs(stored.shape[0] - shape[0])} rows. Set "
            "models.language_model.vocab_size, or give weights of that size after these."
        )
    raise WeightsError(
        f"{name!r} ({stored.key}) has shape {list(stored.shape)} in {stored.file} and "
        f"{list(shape)} in the model; {advice}"
    )


def _widens(name: str, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return (
        name.endswith(_WIDENED)
        and len(stored) == len(shape) == 4
        and (stored[0], *stored[2:]) == (shape[0], *shape[2:])
        and stored[1] < shape[1]
    )


def _complete(name: str, update: Update, base: StoredValue, lora_alpha: float | None) -> None:
    """Set the factor of an update and refuse one that does not fit its weight."""
    if update.down is None or update.up is None:
        there = update.down or update.up
        raise WeightsError(
            f"{there.file if there else name} holds one half of the low-rank update of {name!r}; "
            "the other half is in none of the sources. Give the whole adapter."
        )
    rank = update.down.shape[0]
    product = (update.up.shape[0], *update.down.shape[1:])
    if update.up.shape[1:] != (rank,) or product != base.shape:
        raise WeightsError(
            f"The low-rank update of {name!r} has shapes {list(update.up.shape)} and "
            f"{list(update.down.shape)} in {update.down.file}, its weight {list(base.shape)} in "
            f"{base.file}; these do not belong together."
        )
    if lora_alpha is not None:
        update.factor = lora_alpha / rank
    elif update.factor is None:
        raise WeightsError(
            f"{update.down.file} holds low-rank updates of rank {rank}, and their alpha is not "
            "known. Compose with lora=..., whose alpha they were trained with (the published "
            "configuration has rank 32 and alpha 32)."
        )
