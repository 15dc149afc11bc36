"""Losses of the steps since the last log line, kept on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllm_npu.batch import Batch, Losses
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import TrainingError

MAX_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    step: int
    batch: Batch
    losses: Losses
    loss: Tensor


class LossMeter:
    """Collects losses without asking the device, and reads all of them at once."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._norms: list[tuple[int, Tensor]] = []

    def add(self, step: int, batch: Batch, losses: Losses, loss: Tensor) -> None:
        """Take in one micro-batch.

        Args:
            step: number of the update it belongs to.
            batch: on the host; its tiles and tokens are not kept.
            losses: of the batch.
            loss: its share of the step's loss, 0-d.
        """
        kept = Losses(
            terms={
                name: type(term)(total=term.total.detach(), count=term.count, weight=term.weight)
                for name, term in losses.terms.items()
            },
            per_target=losses.per_target,
            per_drawn=losses.per_drawn,
        )
        self._entries.append(_Entry(step=step, batch=batch, losses=kept, loss=loss.detach()))

    def end_step(self, step: int, grad_norm: Tensor) -> None:
        """Take in the gradient norm of a whole step, 0-d."""
        self._norms.append((step, grad_norm.detach()))

    def check(self) -> None:
        """Read what has come in and make sure that all of it is finite.

        Raises:
            TrainingError: a loss or gradient norm is not; names step, sources and keys.
        """
        if not self._entries:
            return
        losses = torch.stack([entry.loss.float() for entry in self._entries]).tolist()
        for entry, value in zip(self._entries, losses, strict=True):
            if not math.isfinite(value):
                raise _not_finite("loss", value, entry.step, [entry.batch])
        norms = torch.stack([norm.float() for _, norm in self._norms]).tolist()
        for (step, _), value in zip(self._norms, norms, strict=True):
            if not math.isfinite(value):
                batches = [entry.batch for entry in self._entries if entry.step == step]
                raise _not_finite("gradient norm", value, step, batches)

    def read(self, mesh: Mesh) -> dict[str, Any]:
        """Means over the steps since the last reading, then start anew.

        Returns:
            ``loss`` (as it was minimised), ``grad_norm``, ``terms`` (per element, not weighted)
            and, of this rank's share, ``loss_per_source``, ``loss_per_task``,
            ``drawn_loss_per_source``, ``drawn_loss_per_task``.

        Raises:
            TrainingError: a loss or gradient norm is not finite.
        """
        self.check()
        if not self._norms:
            return {}
        num_steps = len(self._norms)
        loss = sum(torch.stack([entry.loss.double() for entry in self._entries]).tolist())
        values: dict[str, Any] = {
            "loss": mesh.sum({"loss": loss})["loss"] / num_steps,
            "grad_norm": sum(torch.stack([norm for _, norm in self._norms]).tolist()) / num_steps,
            "terms": self._read_terms(mesh),
        }
        values |= _per_name("loss", [_of_targets(entry) for entry in self._entries])
        values |= _per_name("drawn_loss", [_of_drawn(entry) for entry in self._entries])
        self._entries, self._norms = [], []
        return values

    def _read_terms(self, mesh: Mesh) -> dict[str, float]:
        names = list(self._entries[0].losses.terms)
        sums: dict[str, float] = {}
        for name in names:
            terms = [entry.losses.terms[name] for entry in self._entries]
            sums[f"total/{name}"] = sum(torch.stack([t.total.double() for t in terms]).tolist())
            sums[f"count/{name}"] = sum(term.count for term in terms)
        sums = mesh.sum(sums)
        return {name: sums[f"total/{name}"] / max(sums[f"count/{name}"], 1.0) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elements:
    """Losses of N elements of a batch, the sequence each belongs to, and its weight."""

    batch: Batch
    values_N: Tensor
    sequences_N: Tensor
    weights_N: Tensor


def _of_targets(entry: _Entry) -> _Elements | None:
    if entry.losses.per_target is None:
        return None
    values = entry.losses.per_target.detach().cpu().double()
    sequences = entry.batch.target_sequences.cpu()
    return _Elements(
        batch=entry.batch,
        values_N=values,
        sequences_N=sequences,
        weights_N=torch.ones_like(values),
    )


def _of_drawn(entry: _Entry) -> _Elements | None:
    if entry.losses.per_drawn is None:
        return None
    values = entry.losses.per_drawn.detach().cpu().double()
    return _Elements(
        batch=entry.batch,
        values_N=values,
        sequences_N=entry.batch.draw_sequences.cpu(),
        weights_N=entry.batch.draw_weights.cpu().double(),
    )


def _per_name(title: str, parts: Sequence[_Elements | None]) -> dict[str, dict[str, float]]:
    known = [part for part in parts if part is not None]
    per = {
        f"{title}_per_source": _means([(part, part.batch.sources) for part in known]),
        f"{title}_per_task": _means([(part, part.batch.tasks) for part in known]),
    }
    return {name: means for name, means in per.items() if means}


def _means(parts: Sequence[tuple[_Elements, tuple[str, ...]]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    weights: dict[str, float] = {}
    for part, names in parts:
        if not names:
            continue
        for into, values in ((totals, part.values_N * part.weights_N), (weights, part.weights_N)):
            sums = torch.bincount(part.sequences_N, values, minlength=len(names)).tolist()
            for name, value in zip(names, sums, strict=True):
                into[name] = into.get(name, 0.0) + value
    return {name: totals[name] / weights[name] for name in sorted(totals) if weights[name] > 0}


def _not_finite(what: str, value: float, step: int, batches: Sequence[Batch]) -> TrainingError:
    keys = [key for batch in batches for key in batch.keys if key]
    sources: Mapping[str, None] = dict.fromkeys(s for batch in batches for s in batch.sources if s)
    rest = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    return TrainingError(
        f"The {what} of step {step} is {value}. Its batch comes from {', '.join(sources)}: "
        f"keys {', '.join(keys[:MAX_NAMED])}{rest}. "
        "Look at these samples, lower the learning rate, or resume from the last checkpoint."
    )
