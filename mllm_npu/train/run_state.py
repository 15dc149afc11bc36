"""Everything a run needs to go on exactly where it was, to and from a checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.fit import check_fit, named_tensors
from mllm_npu.errors import CheckpointError
from mllm_npu.train.optimizer import optimizer_tensors
from mllm_npu.train.random_state import random_tensors, restore_random
from mllm_npu.train.update import Update

PACKAGES = ("mllm-npu", "torch", "transformers", "diffusers", "numpy", "safetensors", "tokenizers")


class Batches(Protocol):
    """An endless stream of batches with a position."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Samples of this rank that were left out since the start, by reason."""

    def preview(self) -> Iterator[Batch]:
        """Batches from the start on, equal on every rank and for every number of ranks."""

    def rehearsal(self) -> list[Batch]:
        """Packs to try before a run, a small one and the largest; the position stays."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches on the host from the position on."""

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was given out, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; refuses one of another data set."""


class RunState:
    """The parts of a run that change while it trains, to and from its checkpoints.

    Args:
        update: weights, optimizer, averages and policy on faults.
        batches: the data.
        checkpoints: where they are kept.
        save_frozen: whether parameters that are not trained are kept as well; without it a resumed
            run takes them from where the run took them at its start.
    """

    def __init__(
        self,
        *,
        update: Update,
        batches: Batches,
        checkpoints: Checkpoints,
        save_frozen: bool = True,
    ) -> None:
        self.update = update
        self.batches = batches
        self.checkpoints = checkpoints
        self.save_frozen = save_frozen

    def save(self, step: int, *, times: dict[str, float]) -> None:
        """Begin to write a checkpoint.

        Args:
            step: updates done.
            times: of the run so far, as its ``Throughput`` gives them.
        """
        update, placed = self.update, self.update.placed
        random = random_tensors(placed.device)
        own = {f"random/{placed.mesh.rank}/{name}": state for name, state in random.items()}
        values = {
            "trained": sorted(update.parameters),
            "ema_updates": update.ema.num_updates if update.ema is not None else None,
            "data": self.batches.state_dict(),
            "faults": update.faults.state_dict(),
            "times": times,
            "world_size": placed.mesh.world_size,
            "versions": installed_versions(),
        }
        self.checkpoints.save(step, tensors=self._tensors() | own, values=values)

    def restore(self, step: int, *, keep_data: bool = False) -> dict[str, float]:
        """Put everything back as it was; returns the times.

        Args:
            step: of the checkpoint.
            keep_data: stay at the place in the data where this run is, and with its count of
                faults.

        Raises:
            CheckpointError: it is of another model or choice of trained parameters, or cut off.
            DataError: its position is one of other data.
        """
        values = self.checkpoints.values(step)
        stored = self.checkpoints.shapes(step)
        try:
            self._check_trained(values["trained"])
            tensors = self._tensors()
            check_fit(
                "the model",
                expected=tensors,
                found={name: s for name, s in stored.items() if not name.startswith("random/")},
            )
            mark = f"random/{self.update.placed.mesh.rank}/"
            random = {
                name: torch.empty(s.shape, dtype=s.dtype)
                for name, s in stored.items()
                if name.startswith(mark)
            }
            self.checkpoints.load(step, tensors | random)
            if self.update.ema is not None:
                self.update.ema.num_updates = int(values["ema_updates"])
            if not keep_data:
                self.batches.load_state_dict(values["data"])
                self.update.faults.load_state_dict(values["faults"])
            if random:
                states = {name.removeprefix(mark): state for name, state in random.items()}
                restore_random(states, self.update.placed.device)
            return {name: float(value) for name, value in values["times"].items()}
        except KeyError as error:
            raise CheckpointError(
                f"The checkpoint of step {step} has no {error}. "
                "Resume with the version that wrote it (see its state.json)."
            ) from error

    def _tensors(self) -> dict[str, Tensor]:
        """What training changes, by name; sharded tensors stay so."""
        update = self.update
        frozen = {id(p) for p in update.objective.parameters() if not p.requires_grad}
        tensors = {
            f"objective/{name}": tensor.detach()
            for name, tensor in named_tensors(update.objective).items()
            if self.save_frozen or id(tensor) not in frozen
        }
        tensors |= {
            f"optimizer/{name}": tensor
            for name, tensor in optimizer_tensors(update.optimizer).items()
        }
        if update.ema is not None:
            tensors |= {f"ema/{name}": average for name, average in update.ema.averages.items()}
        return tensors

    def _check_trained(self, trained: list[str]) -> None:
        now = set(self.update.parameters)
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
