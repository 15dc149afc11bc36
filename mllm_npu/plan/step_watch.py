"""Watch a step on a fake device: memory, kernels and exchanges in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor

from mllm_npu.plan.exchange_kinds import exchange_kind, tensors_in
from mllm_npu.plan.kernel_watch import KernelWatch
from mllm_npu.plan.memory_ledger import MemoryLedger
from mllm_npu.plan.operation_log import OperationLog

_OVER_ALL = ("all_gather", "reduce_scatter", "all_reduce")


class StepWatch(KernelWatch):  # type: ignore[no-untyped-call]
    """Notes what every kernel makes and does.

    Args:
        ledger: takes the memory.
        log: takes kernels and exchanges.
    """

    def __init__(self, *, ledger: MemoryLedger, log: OperationLog) -> None:
        super().__init__(log=log)
        self.ledger = ledger

    def computed(self, args: Sequence[Any], out: Any) -> None:
        """See KernelWatch."""
        ledger = self.ledger
        for tensor in tensors_in(args):
            # What was never seen to come was there before: buckets that C++ has made.
            if type(tensor) is FakeTensor and not ledger.knows(tensor):
                ledger.note(tensor, before=True)
        for tensor in tensors_in(out):
            if type(tensor) is FakeTensor:
                ledger.note(tensor)

    def exchanged(self, kernel: OpOverload, args: Sequence[Any], out: Any) -> None:
        """See KernelWatch."""
        self.computed(args, out)
        if exchange_kind(kernel) not in _OVER_ALL:
            return
        for tensor in tensors_in((args, out)):
            if type(tensor) is FakeTensor and self.ledger.kind_of(tensor) is None:
                self.ledger.note(tensor, "exchange")
