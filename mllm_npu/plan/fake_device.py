"""A device that is only imagined: its tensors have shapes and sizes and no values.

Tensors of the host are real. What copies one of them to the device makes a fake tensor; everything
computed from that is fake too, and takes the ways of the device that is planned for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import _engine_run_backward
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from mllm_npu.models.own_rows import from_own_rows
from mllm_npu.ops.ways import pretend

HOST = torch.device("cpu")
"""Where fake tensors say they are; it is the one device every build of torch has."""
_NARROW = (torch.bfloat16, torch.float16)
# What accelerators compute in float32 under autocast, and a CPU does not.
_WIDENED = frozenset(
    {
        F.layer_norm,
        torch.layer_norm,
        F.group_norm,
        torch.group_norm,
        F.softmax,
        torch.softmax,
        Tensor.softmax,
        F.log_softmax,
        torch.log_softmax,
        Tensor.log_softmax,
        F.mse_loss,
        F.l1_loss,
        F.cosine_similarity,
        torch.pow,
        Tensor.pow,
        Tensor.square,
        torch.rsqrt,
        Tensor.rsqrt,
        torch.exp,
        Tensor.exp,
        torch.log,
        Tensor.log,
        torch.norm,
        Tensor.norm,
        torch.sum,
        Tensor.sum,
        torch.cumsum,
        Tensor.cumsum,
    }
)


class FakeDevice:
    """Where the dry run computes.

    Args:
        kind: torch's type of the device that is planned for.

    Attributes:
        on_copy: is told of every tensor that comes from the host.
    """

    def __init__(self, *, kind: str) -> None:
        self.kind = kind
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.on_copy: Callable[[Tensor], object] = lambda tensor: None

    @property
    def is_accelerator(self) -> bool:
        """Whether tensors come to it from the host by a copy."""
        return self.kind != HOST.type

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute on it while this is open."""
        with ExitStack() as stack:
            stack.enter_context(pretend(self.kind))
            stack.enter_context(self.mode)
            if self.is_accelerator:
                stack.enter_context(_Accelerated(self))
            yield

    def take(self, module: nn.Module) -> None:
        """Give the parameters and buffers of a module without memory a place on the device.

        Args:
            module: on meta, perhaps sharded; changed in place. What is shared stays shared.
        """
        taken: dict[int, Tensor] = {}
        with self.mode:
            for part in module.modules():
                for tensors in (part._parameters, part._buffers):
                    _take(tensors, taken)
                for name, value in vars(part).items():
                    if isinstance(value, Tensor) and value.is_meta:
                        setattr(part, name, _on_device(value, taken))


class _Accelerated(TorchFunctionMode):
    """What an accelerator does otherwise than a CPU: copies from the host, some dtypes."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is Tensor.to and not isinstance(args[0], FakeTensor) and type(args[0]) is Tensor:
            if any(isinstance(value, torch.device | str) for value in (*args[1:], *given.values())):
                copied = _copied(args[0])
                self.device.on_copy(copied)
                return copied
        elif func is Tensor.backward and not any(
            isinstance(value, Tensor) or value for value in (*args[1:], *given.values())
        ):
            return self._run_backward(args[0])
        elif func in _WIDENED and torch.is_autocast_enabled(HOST.type):
            args = [_wide(value) for value in args]
            given = {name: _wide(value) for name, value in given.items()}
        return func(*args, **given)

    def _run_backward(self, loss: Tensor) -> None:
        """The backward pass of a loss, under this mode: blocks compute again what they did before.

        Every public function would come back to this mode first, and leave it for what is inside.
        """
        seed = torch.ones_like(loss)
        with self:
            _engine_run_backward(
                (loss,), (seed,), False, False, (), allow_unreachable=True, accumulate_grad=True
            )


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _NARROW:
        return value.float()
    return value


def _copied(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=HOST)


def _take(tensors: dict[str, Any], taken: dict[int, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            tensors[name] = _on_device(tensor, taken)


def _on_device(tensor: Tensor, taken: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in taken:
        fake = _rows_of(tensor) if isinstance(tensor, DTensor) else _copied(tensor)
        if isinstance(tensor, nn.Parameter):
            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
        taken[id(tensor)] = fake
    return taken[id(tensor)]


def _rows_of(slot: DTensor) -> Tensor:
    return from_own_rows(_copied(slot.to_local()), slot, HOST)
