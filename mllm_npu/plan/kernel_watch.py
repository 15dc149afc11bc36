"""Watch which kernels and exchanges run, on tensors that are real or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._ops import OpOverload
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.plan.exchange_kinds import is_collective
from mllm_npu.plan.operation_log import OperationLog, is_view


class KernelWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what every kernel does.

    Args:
        log: takes kernels and exchanges.
    """

    def __init__(self, *, log: OperationLog) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        out = func(*args, **given)
        if is_collective(func):
            self.exchanged(func, args, out)
            self.log.note_exchange(func, [*args, *given.values()], out)
        elif not is_view(func):
            self.computed(args, out)
            self.log.note(func, args, given, out)
        return out

    def computed(self, args: Sequence[Any], out: Any) -> None:
        """A kernel has run.

        Args:
            args: with what.
            out: what it gave.
        """

    def exchanged(self, kernel: OpOverload, args: Sequence[Any], out: Any) -> None:
        """Ranks have met.

        Args:
            kernel: in which.
            args: with what.
            out: what came of it.
        """
