"""Watch one update of a dry run: what lies there before it, which micro-batch stands for many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from mllm_npu.batch import Batch, Losses
from mllm_npu.device.allocator import Blocks
from mllm_npu.ops.ways import kept_tensors
from mllm_npu.plan.memory_ledger import MemoryLedger
from mllm_npu.plan.operation_log import OperationLog
from mllm_npu.plan.part_watch import PartWatch
from mllm_npu.plan.step_watch import StepWatch
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.optimizer import optimizer_tensors
from mllm_npu.train.update import Update


class WatchedStep:
    """What watches a step.

    Args:
        parts: says what runs.
        blocks: how the device's allocator rounds.
        world: number of all ranks.
        micro_batches: of the step; those between the first and the last are like each other.

    Attributes:
        ledger: takes the memory.
        log: takes kernels and exchanges.
    """

    def __init__(self, *, parts: PartWatch, blocks: Blocks, world: int, micro_batches: int) -> None:
        self.parts = parts
        self.micro_batches = micro_batches
        self.ledger = MemoryLedger(blocks=blocks, in_forward=parts.in_forward)
        self.log = OperationLog(parts=parts, world=world)

    @contextmanager
    def __call__(self, update: Update) -> Iterator[None]:
        """Watch while this is open; what is there already is noted first."""
        self._note(update)
        watch = StepWatch(ledger=self.ledger, log=self.log)
        with self.parts(), self.ledger.watching_sizes(), watch:
            yield

    @contextmanager
    def optimizing(self, update: Update) -> Iterator[None]:
        """The weights are changed inside; the gradients are there."""
        gradients = [parameter.grad for parameter in update.parameters.values()]
        self.ledger.tag(gradients, "gradients")
        self.parts.optimizing = True
        try:
            yield
        finally:
            self.parts.optimizing = False

    def meter(self, traced: int) -> LossMeter:
        """Takes the losses of the micro-batches that are run.

        Args:
            traced: how many.
        """
        return _WeighingMeter(self, traced)

    def _note(self, update: Update) -> None:
        """Say what all that is there before the step is for."""
        ledger, objective = self.ledger, update.objective
        ledger.tag(_gathered(objective), "unsharded")
        ledger.tag([parameter.detach() for parameter in objective.parameters()], "parameters")
        ledger.tag(objective.buffers(), "parameters")
        ledger.tag(kept_tensors(), "temporary")
        ledger.tag(optimizer_tensors(update.optimizer).values(), "optimizer")
        if update.ema is not None:
            ledger.tag(update.ema.averages.values(), "optimizer")


class _WeighingMeter(LossMeter):
    """Hears of each micro-batch that is done; one stands for all between the first and the last."""

    def __init__(self, watched: WatchedStep, traced: int) -> None:
        super().__init__()
        self._watched, self._left = watched, traced

    def add(self, step: int, batch: Batch, losses: Losses, loss: Tensor) -> None:
        """See LossMeter."""
        super().add(step, batch, losses, loss)
        self._left -= 1
        is_middle = self._left == 2 and self._watched.micro_batches > 2
        self._watched.log.weight = self._watched.micro_batches - 2 if is_middle else 1


def _gathered(objective: nn.Module) -> list[Tensor]:
    """What FSDP gathers parameters into; empty between two uses."""
    found = []
    for part in objective.modules():
        if isinstance(part, FSDPModule):
            group: Any = part._get_fsdp_state()._fsdp_param_group
            for parameter in group.fsdp_params if group is not None else ():
                found += [*parameter.all_gather_outputs, *parameter._unsharded_inner_tensors]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]
