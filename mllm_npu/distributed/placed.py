"""A model in its place: how it is called, how its gradients meet, and how it is gathered."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from mllm_npu.distributed.gradient_sum import sum_bucket
from mllm_npu.distributed.mesh import Mesh


class Placed:
    """A shaped module, and the same face whatever way it is spread over ranks.

    Args:
        module: shaped by ``Parallel.shape``; its values may still be missing.
        mesh: the ranks.
        device: where to compute.
        compute_dtype: in which matrices are multiplied.
        replicated: every rank holds the whole module.
        sum_gradients_once: exchange gradients behind the last micro-batch of a step.
        reshard_after_forward: sharded blocks free what they gathered until their backward pass.
        cpu_offload: sharded parameters stay on the host.

    Attributes:
        module: the same object, for its names and parameters.
        rows_device: where the rows of sharded parameters lie.
    """

    def __init__(
        self,
        *,
        module: nn.Module,
        mesh: Mesh,
        device: torch.device,
        compute_dtype: torch.dtype = torch.float32,
        replicated: bool = False,
        sum_gradients_once: bool = False,
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
    ) -> None:
        self.module = module
        self.mesh = mesh
        self.device = device
        self.compute_dtype = compute_dtype
        self.replicated = replicated and mesh.world_size > 1
        self.sum_gradients_once = sum_gradients_once or self.replicated
        self.reshard_after_forward = reshard_after_forward
        self.rows_device = torch.device("cpu") if cpu_offload else device
        self._call: Callable[..., Any] = module

    @property
    def is_sharded(self) -> bool:
        """Whether no rank holds all parameters."""
        return isinstance(self.module, FSDPModule)

    def settle(self) -> None:
        """Move what is not sharded to the device; the values are there now."""
        if not self.is_sharded:
            self.module.to(self.device)
        else:
            for part in whole_parts(self.module):
                if any(parameter.device != self.device for parameter in part.parameters()):
                    part.to(self.device)
            _move_buffers(self.module, self.device)
            # Else the part that is called first would take itself for the whole.
            self.module._get_fsdp_state()._lazy_init()  # type: ignore[operator]
        if self.replicated:
            self._call = _replicate(self.module)
        self.module.compute_on(self.device)  # type: ignore[operator]
        self._note_blocks()

    def __call__(self, *args: Any, last: bool = True) -> Any:
        """Run the module's forward in the compute dtype.

        Args:
            args: of the module.
            last: whether the backward pass of this call is the last one before the update.
        """
        if isinstance(self.module, FSDPModule):
            sums = last or not self.sum_gradients_once
            self.module.set_requires_gradient_sync(sums)
            self.module.set_is_last_backward(last)
        call = self._call
        keeps = isinstance(call, DistributedDataParallel) and not last
        with call.no_sync() if keeps else nullcontext(), self.autocast():  # type: ignore[attr-defined]
            return call(*args)

    def autocast(self) -> torch.autocast:
        """Matrices are multiplied in the compute dtype inside."""
        is_mixed = self.compute_dtype is not torch.float32
        return torch.autocast(self.device.type, self.compute_dtype, enabled=is_mixed)

    def clip_gradients(self, parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
        """Scale gradients so that their norm over all ranks is at most ``largest``.

        Returns:
            The norm before, 0-d.
        """
        with self.mesh.progress.inside("sum of gradient norms"):
            norm = clip_grad_norm_(parameters, largest)
            return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Calls inside change nothing: evaluation mode, no gradients; every rank calls in step."""
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train(was_training)
            if isinstance(self.module, FSDPModule):
                # Else the parameters around the blocks stay gathered as they are now.
                self.module.reshard()
                _forget_calls(self.module)

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The whole module on every rank, which may then call any part any number of times."""
        shards = [part for part in self.module.modules() if isinstance(part, FSDPModule)]
        with self.mesh.progress.inside("gathering of all parameters"):
            for part in shards:
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()
        try:
            with self.autocast():
                yield self.module
        finally:
            for part in shards:
                part.reshard()
                resharded = self.reshard_after_forward and part is not self.module
                part.set_reshard_after_forward(resharded, recurse=False)
            if isinstance(self.module, FSDPModule):
                _forget_calls(self.module)

    def _note_blocks(self) -> None:
        """Note every block as it begins, in both directions; what waits there waits for ranks."""
        progress = self.mesh.progress
        for name, part in self.module.named_modules():
            if part is self.module or not _is_sharded(part):
                continue

            def begins(_: nn.Module, __: Any, name: str = name) -> None:
                progress.exchange(f"gathering of the parameters of {name}")

            def ends(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                first = output[0] if isinstance(output, tuple) else output
                if isinstance(first, Tensor) and first.requires_grad:
                    first.register_hook(  # type: ignore[no-untyped-call]
                        lambda _: progress.exchange(f"backward exchange of {name}")
                    )

            part.register_forward_pre_hook(begins, prepend=True)
            part.register_forward_hook(ends)


def whole_parts(module: nn.Module) -> list[nn.Module]:
    """Parts that are not sharded, and are not computed in the dtype of the others."""
    holders = (part for part in module.modules() if hasattr(part, "whole_parts"))
    return [part for holder in holders for part in holder.whole_parts()]  # type: ignore[operator]


def _is_sharded(part: nn.Module) -> bool:
    return isinstance(part, FSDPModule)


def _forget_calls(module: FSDPModule) -> None:
    """Drop the order of calls without a backward pass.

    The next backward pass would gather ahead by it, and ranks may have called unequally often.
    """
    module._get_fsdp_state()._comm_ctx.post_forward_order.clear()


def _move_buffers(module: nn.Module, device: torch.device) -> None:
    """Move what sharding has left out: buffers that had no values then."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = buffer.to(device)


def _replicate(module: nn.Module) -> DistributedDataParallel:
    """Every rank holds all; gradients are summed, since a loss is a share of the whole step's."""
    with warnings.catch_warnings():
        # The new name of the setting also leaves out the first exchange, which is wanted.
        warnings.simplefilter("ignore", FutureWarning)
        call = DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    call.register_comm_hook(None, sum_bucket)
    return call
