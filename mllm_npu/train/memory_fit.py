"""Try the largest pack before a run starts, and say what would fit where one does not."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mllm_npu.batch import Batch
from mllm_npu.device.memory import MemoryGauge
from mllm_npu.errors import TrainingError
from mllm_npu.train.faults import tell_samples
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.update import Update

_ROOM = 0.9
"""Share of the memory a pack may take, since packs of one size differ."""
_STEP = 64
"""Tokens to which advice is rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A pack that has run.

    Args:
        batch: what was in it.
        peak_gib: most memory while it ran.
    """

    batch: Batch
    peak_gib: float


class MemoryFit:
    """What packs take, from the ones that have run.

    Args:
        gauge: measures the memory of the device.
    """

    def __init__(self, *, gauge: MemoryGauge) -> None:
        self.gauge = gauge
        self._idle_gib = 0.0
        self._tried: list[_Tried] = []

    def try_packs(self, update: Update, batches: Sequence[Batch]) -> float:
        """Run forward and backward pass of packs, smallest first; no weight changes.

        Args:
            update: its gradients are dropped again.
            batches: on the host.

        Returns:
            The most memory a pack has taken, in GiB.

        Raises:
            TrainingError: one does not fit; says what would.
        """
        self._idle_gib = self.gauge.now_gib()
        for batch in sorted(batches, key=lambda batch: batch.num_tokens):
            self.gauge.restart()
            counts = update.objective.counts(batch)
            try:
                update.backward([batch], counts, step=0, first_pack=0, meter=LossMeter())
            except (RuntimeError, MemoryError) as error:
                self.explain(error, [batch])
                raise
            finally:
                update.forget_gradients()
            self._tried.append(_Tried(batch=batch, peak_gib=self.gauge.peak_gib()))
        gc.collect()
        return max((tried.peak_gib for tried in self._tried), default=0.0)

    def explain(self, error: BaseException, batches: Sequence[Batch]) -> None:
        """Raise an error that says what would fit, if memory is what was missing.

        Args:
            error: of a step.
            batches: of that step.

        Raises:
            TrainingError: memory was missing.
        """
        if not self.gauge.is_out_of_memory(error):
            return
        tokens = max(batch.num_tokens for batch in batches)
        tiles = max(int(batch.tiles.shape[0]) for batch in batches)
        raise TrainingError(
            f"A pack of {tokens} tokens and {tiles} tiles does not fit into the memory of "
            f"{self.gauge.name} ({self.gauge.limit_gib():.1f} GiB). {self._advise(tokens, tiles)} "
            "Or keep less: parallel.recompute=full, parallel=fsdp2 on more processes, "
            f"parallel.cpu_offload=true. {tell_samples(batches)}"
        ) from error

    def _advise(self, tokens: int, tiles: int) -> str:
        """What would fit, on a line through what has run."""
        tried = max(self._tried, key=lambda tried: tried.batch.num_tokens, default=None)
        if tried is None:
            return (
                f"No smaller pack was tried; set dataset.tokens_per_pack={_round(tokens / 2)} and "
                f"++dataset.tiles_per_pack={max(1, tiles // 2)}, half of it."
            )
        per_token = max(tried.peak_gib - self._idle_gib, 1e-9) / tried.batch.num_tokens
        room = self.gauge.limit_gib() * _ROOM - self._idle_gib
        share = min(room / (per_token * tokens), _ROOM)
        tried_tiles = int(tried.batch.tiles.shape[0])
        if share * tokens < _STEP:
            return (
                f"Without any pack the run holds {self._idle_gib:.1f} GiB already, which leaves no "
                "room for one."
            )
        return (
            f"A pack of {tried.batch.num_tokens} tokens and {tried_tiles} tiles ran, with a peak "
            f"of {tried.peak_gib:.1f} GiB; by that about {_round(share * tokens)} tokens and "
            f"{max(1, int(share * tiles))} tiles fit. Set "
            f"dataset.tokens_per_pack={_round(share * tokens)} "
            f"++dataset.tiles_per_pack={max(1, int(share * tiles))}."
        )


def fit_memory(*, device: torch.device) -> MemoryFit:
    """Fit packs into the memory of a device."""
    return MemoryFit(gauge=MemoryGauge(device))


def _round(tokens: float) -> int:
    return max(_STEP, int(tokens) // _STEP * _STEP)
