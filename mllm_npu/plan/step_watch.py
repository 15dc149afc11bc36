"""Watch a step on a fake device: memory, kernels and exchanges in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.plan.exchange_kinds import exchange_kind, is_collective, tensors_in
from mllm_npu.plan.memory_ledger import MemoryLedger
from mllm_npu.plan.operation_log import OperationLog, is_view

_OVER_ALL = ("all_gather", "reduce_scatter", "all_reduce")


class StepWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what every kernel makes and does.

    Args:
        ledger: takes the memory.
        log: takes kernels and exchanges.
    """

    def __init__(self, *, ledger: MemoryLedger, log: OperationLog) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger
        self.log = log

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        assert isinstance(func, OpOverload)
        if func.namespace == "prim":
            return func(*args, **given)
        if DTensor in types:
            return NotImplemented  # it says first what each rank does with its own rows
        if is_collective(func):
            return self._exchange(func, args, given)
        out = func(*args, **given)
        if is_view(func):
            return out
        self._hold(args, out)
        self.log.note(func, args, given, out)
        return out

    def _hold(self, args: Sequence[Any], out: Any) -> None:
        ledger = self.ledger
        for tensor in tensors_in(args):
            # What was never seen to come was there before: buckets that C++ has made.
            if type(tensor) is FakeTensor and not ledger.knows(tensor):
                ledger.note(tensor, before=True)
        for tensor in tensors_in(out):
            if type(tensor) is FakeTensor:
                ledger.note(tensor)

    def _exchange(self, func: OpOverload, args: Sequence[Any], given: Mapping[str, Any]) -> Any:
        self._hold(args, ())
        out = func(*args, **given)
        self._hold((), out)
        if exchange_kind(func) in _OVER_ALL:
            for tensor in tensors_in((args, out)):
                if type(tensor) is FakeTensor and self.ledger.kind_of(tensor) is None:
                    self.ledger.note(tensor, "exchange")
        self.log.note_exchange(func, [*args, *given.values()], out)
        return out
