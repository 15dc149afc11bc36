"""One update: the backward passes of its packs, and the step of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.distributed.placed import Placed
from mllm_npu.train.ema import Ema
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.optimizer import AdamW, initialise_state, set_learning_rate
from mllm_npu.train.random_state import seed_pack


class Update:
    """Everything that changes weights.

    Args:
        placed: the objective in its place, values and all.
        optimizer: recipe; built over what the objective trains.
        faults: says which updates must not happen.
        clip_grad_norm: largest gradient norm; infinite does not clip.
        ema_decay: of the averaged weights; None keeps none.
        seed: of what packs draw at random.

    Attributes:
        parameters: what is trained, by name.
        optimizer: with its state made.
        ema: averaged weights or None.
    """

    def __init__(
        self,
        *,
        placed: Placed,
        optimizer: AdamW,
        faults: FaultPolicy,
        clip_grad_norm: float,
        ema_decay: float | None,
        seed: int,
    ) -> None:
        assert isinstance(placed.module, Objective)
        self.placed = placed
        self.objective = placed.module
        self.parameters = self.objective.trained_parameters()
        self.optimizer = optimizer.build(self.parameters)
        initialise_state(self.optimizer)
        self.ema = Ema(self.parameters, decay=ema_decay) if ema_decay is not None else None
        self.faults = faults
        self.clip_grad_norm = clip_grad_norm
        self.seed = seed

    def backward(
        self,
        batches: Sequence[Batch],
        counts: Mapping[str, float],
        *,
        step: int,
        first_pack: int,
        meter: LossMeter,
    ) -> None:
        """Gradients of one update.

        Args:
            batches: micro-batches of this rank, on the host.
            counts: elements behind each term of the loss, of the whole step and all ranks.
            step: number of the update.
            first_pack: number of its first pack, counted over the run and all ranks.
            meter: takes the losses.
        """
        mesh = self.placed.mesh
        for number, batch in enumerate(batches):
            keys = [key for key in batch.keys if key]
            mesh.progress.note("forward pass", step=step, keys=keys)
            seed_pack(self.seed, first_pack + number * mesh.data_size + mesh.data_rank)
            losses = self.placed(batch, last=number == len(batches) - 1)
            loss = losses.total(counts)
            mesh.progress.note("backward pass")
            loss.backward()
            meter.add(step, batch, losses, loss)

    def step(self, lr_factor: float) -> Tensor:
        """Change the weights by the gradients, unless these are bad.

        Args:
            lr_factor: of every learning rate, from the schedule.

        Returns:
            The gradient norm before clipping, 0-d.
        """
        self.placed.mesh.progress.note("update")
        set_learning_rate(self.optimizer, lr_factor * self.faults.lr_factor)
        norm = self.placed.clip_gradients(self.parameters.values(), self.clip_grad_norm)
        blocked = self.faults.blocks(norm)
        if self.optimizer.defaults["fused"]:
            # The kernel itself leaves the weights and moments as they are, so nothing waits.
            self.optimizer.found_inf = blocked  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bool(blocked):
            self.optimizer.step()
        self.forget_gradients()
        if self.ema is not None:
            self.ema.update()
        return norm

    def forget_gradients(self) -> None:
        """Drop what the backward passes have left."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def lr(self) -> float:
        """Learning rate of the first group of parameters."""
        lr = self.optimizer.param_groups[0]["lr"]
        return float(lr) if not isinstance(lr, torch.Tensor) else float(lr.item())
