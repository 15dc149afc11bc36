"""Everything a run needs to go on exactly where it was, to and from a checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.distributed.checkpoint import (
    Checkpoints,
    Snapshot,
    load_module_tensors,
    module_tensors,
)
from mllm_npu.errors import CheckpointError
from mllm_npu.train.ema import Ema
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.optimizer import load_optimizer_tensors, optimizer_tensors
from mllm_npu.train.random_state import random_tensors, random_values, restore_random

PACKAGES = ("mllm-npu", "torch", "transformers", "diffusers", "numpy", "safetensors", "tokenizers")


class Batches(Protocol):
    """An endless stream of batches with a position."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Samples of this rank that were left out since the start, by reason."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches on the host from the position on."""

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was given out, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; refuses one of another data set."""


class RunState:
    """The parts of a run that change while it trains.

    Args:
        objective: model and heads.
        optimizer: of its trained parameters.
        ema: their averages, if any are kept.
        batches: the data.
        device: whose random state counts.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        batches: Batches,
        device: torch.device,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.ema = ema
        self.batches = batches
        self.device = device

    def save(self, checkpoints: Checkpoints, step: int, *, times: dict[str, float]) -> None:
        """Write a checkpoint.

        Args:
            checkpoints: where.
            step: updates done.
            times: ``seconds`` and ``cpu_seconds`` of the run so far.
        """
        tensors: dict[str, dict[str, Tensor]] = {
            "objective": module_tensors(self.objective),
            "optimizer": optimizer_tensors(self.optimizer),
            "random": random_tensors(self.device),
        }
        if self.ema is not None:
            tensors["ema"] = self.ema.averages
        values = {
            "trained": sorted(self.objective.trained_parameters()),
            "ema_updates": self.ema.num_updates if self.ema is not None else None,
            "data": self.batches.state_dict(),
            "random": random_values(),
            "times": times,
            "versions": installed_versions(),
        }
        checkpoints.save(step, tensors=tensors, values=values)

    def restore(self, snapshot: Snapshot) -> dict[str, float]:
        """Put everything back as it was; returns the times.

        Raises:
            CheckpointError: it is of another model or choice of trained parameters, or cut off.
            DataError: its position is one of other data.
        """
        try:
            values = snapshot.values
            self._check_trained(values["trained"])
            load_module_tensors(self.objective, snapshot.group("objective"))
            load_optimizer_tensors(self.optimizer, snapshot.group("optimizer"))
            if self.ema is not None:
                self.ema.load(snapshot.group("ema"), num_updates=values["ema_updates"])
            self.batches.load_state_dict(values["data"])
            restore_random(values["random"], snapshot.group("random"), self.device)
            return {name: float(values["times"][name]) for name in ("seconds", "cpu_seconds")}
        except KeyError as error:
            raise CheckpointError(
                f"The checkpoint of step {snapshot.step} has no {error}. "
                "Resume with the version that wrote it (see its state.json)."
            ) from error

    def _check_trained(self, trained: list[str]) -> None:
        now = set(self.objective.trained_parameters())
        added, gone = sorted(now - set(trained)), sorted(set(trained) - now)
        if added or gone:
            raise CheckpointError(
                f"The checkpoint trains {len(trained)} parameters, this run {len(now)}: "
                f"new here {added[:4]}, only there {gone[:4]}. "
                "Resume with the trainable patterns it was written with, or in another folder."
            )


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages whose change can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
