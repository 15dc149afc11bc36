"""Losses of the steps since the last log line, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllm_npu.batch import Batch, Losses
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.train.faults import StepOutcome

_SHARE = "of"
"""Between the name of a mean and what it is divided by, in the sums of all ranks."""


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
        self._norms: dict[int, Tensor] = {}
        self._losses: dict[int, float] = {}

    def add(self, step: int, batch: Batch, losses: Losses, loss: Tensor) -> None:
        """Take in one micro-batch.

        Args:
            step: number of the update it belongs to.
            batch: on the host; kept until it is read, for whoever must say what was in it.
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
        self._norms[step] = grad_norm.detach()

    def look(self, mesh: Mesh) -> list[StepOutcome]:
        """Loss and gradient norm of the updates since the last look, equal on all ranks."""
        steps = [step for step in self._norms if step not in self._losses]
        if not steps:
            return []
        entries = [entry for entry in self._entries if entry.step in steps]
        own = torch.stack([entry.loss.float() for entry in entries]).tolist()
        norms = torch.stack([self._norms[step].float() for step in steps]).tolist()
        sums = dict.fromkeys(steps, 0.0)
        for entry, loss in zip(entries, own, strict=True):
            sums[entry.step] += loss
        losses = mesh.sum({f"loss of step {step}": loss for step, loss in sums.items()})
        outcomes = []
        for step, norm in zip(steps, norms, strict=True):
            mine = [(e.batch, loss) for e, loss in zip(entries, own, strict=True) if e.step == step]
            self._losses[step] = losses[f"loss of step {step}"]
            outcomes.append(
                StepOutcome(
                    step=step,
                    loss=self._losses[step],
                    grad_norm=norm,
                    batches=tuple(batch for batch, _ in mine),
                    own_losses=tuple(loss for _, loss in mine),
                )
            )
        return outcomes

    def drop(self, steps: Collection[int]) -> None:
        """Leave some updates out of the means."""
        self._entries = [entry for entry in self._entries if entry.step not in steps]
        for step in steps:
            self._norms.pop(step, None)
            self._losses.pop(step, None)

    def read(self, mesh: Mesh) -> dict[str, Any]:
        """Means over the updates since the last reading, then start anew; call ``look`` first.

        Returns:
            ``loss`` (as it was minimised) and ``grad_norm`` where there were updates; ``terms``
            (per element, not weighted),
            ``loss_per_source``, ``loss_per_task``, ``drawn_loss_per_source``,
            ``drawn_loss_per_task``; of all ranks, and equal on all of them.
        """
        steps = list(self._norms)
        sums = mesh.sum_open(self._own_sums())
        values: dict[str, Any] = {}
        if steps:
            norms = torch.stack([self._norms[step].float() for step in steps]).tolist()
            values["loss"] = sum(self._losses[step] for step in steps) / len(steps)
            values["grad_norm"] = sum(norms) / len(steps)
        if any(sums.values()):
            values |= _means(sums)
        self._entries, self._norms, self._losses = [], {}, {}
        return values

    def _own_sums(self) -> dict[str, float]:
        """Totals and what they are divided by, of this rank."""
        sums: dict[str, float] = {}
        for name in self._entries[0].losses.terms if self._entries else ():
            terms = [entry.losses.terms[name] for entry in self._entries]
            total = sum(torch.stack([term.total.float() for term in terms]).tolist())
            _add(sums, "terms", name, total, float(sum(term.count for term in terms)))
        for title, parts in (
            ("loss", [_of_targets(entry) for entry in self._entries]),
            ("drawn_loss", [_of_drawn(entry) for entry in self._entries]),
        ):
            for part in parts:
                if part is not None:
                    _add_per_name(sums, f"{title}_per_source", part, part.batch.sources)
                    _add_per_name(sums, f"{title}_per_task", part, part.batch.tasks)
        return sums


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


def _add_per_name(
    sums: dict[str, float], title: str, part: _Elements, names: Sequence[str]
) -> None:
    if not names:
        return
    values, weights = part.values_N * part.weights_N, part.weights_N
    totals = torch.bincount(part.sequences_N, values, minlength=len(names)).tolist()
    shares = torch.bincount(part.sequences_N, weights, minlength=len(names)).tolist()
    for name, total, share in zip(names, totals, shares, strict=True):
        if share > 0:
            _add(sums, title, name, total, share)


def _add(sums: dict[str, float], title: str, name: str, total: float, share: float) -> None:
    key = f"{title}/{name}"
    sums[key] = sums.get(key, 0.0) + total
    sums[f"{_SHARE} {key}"] = sums.get(f"{_SHARE} {key}", 0.0) + share


def _means(sums: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Totals of all ranks -> means by title and name; terms without elements are 0."""
    means: dict[str, dict[str, float]] = {"terms": {}}
    for key in sorted(sums):
        if key.startswith(f"{_SHARE} "):
            continue
        title, name = key.split("/", 1)
        share = sums[f"{_SHARE} {key}"]
        if share > 0 or title == "terms":
            means.setdefault(title, {})[name] = sums[key] / max(share, 1.0)
    return means
