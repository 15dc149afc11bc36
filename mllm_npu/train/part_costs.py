"""Find what one item costs a part of a model, by running the part without memory.

FLOPs are those of matrix products and convolutions, a multiplication and an addition counted as
two; what is done element by element is left out, as in every published utilisation. Attention is
counted without what a fused kernel computes again in its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mllm_npu.errors import MllmNpuError


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A tensor a part is given, without its values.

    Args:
        shape: of one item, with its leading dimension.
        dtype: float numbers are float32 whatever the part computes in; the count is the same.
        needs_gradient: something before the part is trained.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    needs_gradient: bool = False

    def make(self, device: str) -> Tensor:
        """The tensor, on a device that holds no values."""
        tensor = torch.zeros(self.shape, dtype=self.dtype, device=device)
        return tensor.requires_grad_(self.needs_gradient)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCost:
    """FLOPs of one item.

    Args:
        forward: of the forward pass.
        backward: of the backward pass as it is needed: gradients of what is trained, and of the
            inputs where something before the part is trained.
        carries_gradient: whether what comes out needs a gradient, because something in the part
            or before it is trained.
        is_estimated: found by counting weights, because the part does not run without memory.
        shape: of what comes out; empty where it is estimated.
    """

    forward: float
    backward: float
    carries_gradient: bool = False
    is_estimated: bool = False
    shape: tuple[int, ...] = ()

    @property
    def total(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward

    def plus(self, other: PartCost, *, times: float = 1.0) -> PartCost:
        """The cost of this and of ``times`` another; a negative number takes away."""
        return PartCost(
            forward=self.forward + times * other.forward,
            backward=self.backward + times * other.backward,
            carries_gradient=self.carries_gradient or other.carries_gradient,
            is_estimated=self.is_estimated or other.is_estimated,
        )


NO_COST = PartCost(forward=0.0, backward=0.0)


def measure_part(
    part: nn.Module,
    run: Callable[..., Tensor],
    inputs: Sequence[Input],
    *,
    num_tokens: float = 1.0,
    with_gradient: bool = True,
) -> PartCost:
    """Run a part on tensors without values and count; the part stays as it is.

    Its own parameters and buffers are replaced for the time of the run, none is copied, and no
    random number is drawn.

    Args:
        part: whose cost is wanted; which of its parameters are trained decides the backward pass.
        run: what is done with it, such as the part itself or one of its methods.
        inputs: what ``run`` is given.
        num_tokens: how often each weight is used, for the estimate where the part does not run.
        with_gradient: False where the loop runs the part without gradients.
    """
    for device, mode in (("meta", nullcontext), ("cpu", _fake_mode)):
        try:
            with torch.random.fork_rng(devices=[]), mode(), torch.set_grad_enabled(with_gradient):
                return _count(part, run, inputs, device)
        except (RuntimeError, ValueError, TypeError, MllmNpuError):
            # Some parts ask their tensors for values or for a device with autocast.
            continue
    needs_gradient = any(entry.needs_gradient for entry in inputs)
    return estimate_part(part, num_tokens, needs_gradient, with_gradient=with_gradient)


def estimate_part(
    part: nn.Module,
    num_tokens: float,
    needs_gradient: bool,
    *,
    with_gradient: bool = True,
    leave_out: Sequence[Tensor] = (),
) -> PartCost:
    """Two operations per weight of a matrix and token, and as many for each gradient.

    Args:
        part: whose weights are counted; tables of embeddings are left out.
        num_tokens: how often each weight is used.
        needs_gradient: something before the part is trained.
        with_gradient: see ``measure_part``.
        leave_out: weights that are counted elsewhere.
    """
    tables = [module.weight for module in part.modules() if isinstance(module, nn.Embedding)]
    left_out = {id(weight) for weight in [*tables, *leave_out]}
    weights = [p for p in part.parameters() if p.dim() > 1 and id(p) not in left_out]
    forward = 2.0 * num_tokens * sum(weight.numel() for weight in weights)
    trained = 2.0 * num_tokens * sum(weight.numel() for weight in weights if weight.requires_grad)
    is_trained = any(parameter.requires_grad for parameter in part.parameters())
    carries_gradient = with_gradient and (needs_gradient or is_trained)
    return PartCost(
        forward=forward,
        backward=forward + trained if carries_gradient else 0.0,
        carries_gradient=carries_gradient,
        is_estimated=True,
    )


def count_flops() -> FlopCounterMode:
    """A context that counts the products of matrices inside it, also where torch's own does not."""
    operations = torch.ops.aten
    formulas = {
        operations.addmm_: _count_added_product,
        operations.baddbmm_: _count_added_product,
        operations.convolution_backward: _count_convolution_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


class _Holder(nn.Module):
    """Holds the part, so that its tensors can be replaced while any of its methods runs."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return run(*inputs)


def _count(
    part: nn.Module, run: Callable[..., Tensor], inputs: Sequence[Input], device: str
) -> PartCost:
    holder = _Holder(part)
    named: dict[str, Tensor] = {**dict(holder.named_parameters()), **dict(holder.named_buffers())}
    hollow = {name: _hollow(tensor, device) for name, tensor in named.items()}
    given = [entry.make(device) for entry in inputs]
    # The fused kernels of some devices have no formula; plain products are counted everywhere.
    with sdpa_kernel(SDPBackend.MATH), count_flops() as counter:
        out = torch.func.functional_call(holder, hollow, (run, *given))
        forward = counter.get_total_flops()
        if out.requires_grad:
            out.sum().backward()
    return PartCost(
        forward=float(forward),
        backward=float(counter.get_total_flops() - forward),
        carries_gradient=out.requires_grad,
        shape=tuple(out.shape),
    )


def _count_added_product(
    into: Sequence[int], left: Sequence[int], right: Sequence[int], **others: Any
) -> int:
    return 2 * prod(left) * right[-1]


def _count_convolution_backward(
    grad: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
    **others: Any,
) -> int:
    """As many as forward for each gradient; torch's own formula counts groups as if they mixed."""
    places = inputs[2:] if transposed else grad[2:]
    return 2 * grad[0] * prod(places) * prod(weight) * sum(output_mask[:2])


def _hollow(tensor: Tensor, device: str) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    hollow = torch.empty(tensor.shape, dtype=dtype, device=device)
    return hollow.requires_grad_(tensor.requires_grad)


@contextmanager
def _fake_mode() -> Iterator[Any]:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
