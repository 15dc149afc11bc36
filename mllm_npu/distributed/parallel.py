"""How a model is spread over ranks and what it computes in; applied from outside, in one order.

Before the values are there (the model may have no memory yet):

1. trained parameters get the master dtype;
2. language models get the exchange of a shared sequence;
3. blocks are recomputed in the backward pass instead of kept;
4. blocks are compiled;
5. blocks, then what is around them, are sharded.

Then the values are read, each rank its own rows, and at last what is not sharded moves to the
device (see ``Placed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from mllm_npu.device.platform import platform_of
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.placed import Placed, whole_parts
from mllm_npu.distributed.recompute import RECOMPUTE, Recompute, recompute_block
from mllm_npu.errors import ConfigError
from mllm_npu.ops.sequence_exchange import SequenceExchange

Kind = Literal["single", "ddp", "fsdp2", "hsdp"]
Number = Literal["auto", "float32", "bfloat16", "float16"]
_KINDS = ("single", "ddp", "fsdp2", "hsdp")
_NUMBERS = ("auto", "float32", "bfloat16", "float16")


class Shardable(Protocol):
    """What can be spread over ranks: a module that names its blocks."""

    def sharding_units(self) -> Sequence[nn.Module]:
        """Blocks that are sharded, recomputed and compiled one by one, in order of execution.

        Every rank must call each of them equally often; what it calls at will it does not name.
        """


class Parallel:
    """Recipe of how to train on several ranks.

    Args:
        kind: ``single`` one process; ``ddp`` every rank holds the whole model; ``fsdp2``
            parameters, gradients and optimizer are sharded over all ranks; ``hsdp`` sharded inside
            each of ``replicas`` groups of ranks.
        replicas: groups that hold the whole model between them; for hsdp alone.
        sequence_size: ranks that share the sequences of a pack (Ulysses: tokens are exchanged for
            attention heads inside attention), for packs too long for one device.
        master_dtype: of trained parameters, their gradients and the optimizer.
        compute_dtype: in which matrices are multiplied; auto is the device's.
        reduce_dtype: in which gradients are summed over ranks.
        cpu_offload: keep parameters, gradients and optimizer on the host; for sharded kinds.
        reshard_after_forward: free the gathered parameters of a block until its backward pass;
            keeping them saves one exchange and costs their memory.
        sum_gradients_once: with several micro-batches, exchange gradients behind the last one; for
            sharded kinds this keeps the gradients of the whole model on each rank.
        recompute: ``full`` keeps only the inputs of a block for the backward pass, ``selective``
            also the results of attention and of every second matrix product.
        compile_backend: of torch.compile for the blocks, such as inductor; null does not compile.
        timeout_seconds: an exchange that takes longer ends the run instead of hanging.

    Raises:
        ConfigError: settings that do not go together.

    Source: FSDP2 (torch.distributed.fsdp.fully_shard); HSDP; Ulysses (Jacobs et al. 2023).
    """

    def __init__(
        self,
        *,
        kind: Kind,
        replicas: int = 1,
        sequence_size: int = 1,
        master_dtype: Number = "float32",
        compute_dtype: Number = "auto",
        reduce_dtype: Number = "float32",
        cpu_offload: bool = False,
        reshard_after_forward: bool = True,
        sum_gradients_once: bool = False,
        recompute: Recompute = "none",
        compile_backend: str | None = None,
        timeout_seconds: float = 600.0,
    ) -> None:
        _check_choice("kind", kind, _KINDS)
        _check_choice("recompute", recompute, RECOMPUTE)
        for name, number in (
            ("master_dtype", master_dtype),
            ("compute_dtype", compute_dtype),
            ("reduce_dtype", reduce_dtype),
        ):
            _check_choice(name, number, _NUMBERS if name == "compute_dtype" else _NUMBERS[1:])
        self.kind = kind
        self.replicas = replicas
        self.sequence_size = sequence_size
        self.master_dtype: torch.dtype = getattr(torch, master_dtype)
        self.compute_dtype = compute_dtype
        self.reduce_dtype: torch.dtype = getattr(torch, reduce_dtype)
        self.cpu_offload = cpu_offload
        self.reshard_after_forward = reshard_after_forward
        self.sum_gradients_once = sum_gradients_once
        self.recompute: Recompute = recompute
        self.compile_backend = compile_backend
        self.timeout_seconds = timeout_seconds
        self._check()

    @property
    def shards(self) -> bool:
        """Whether parameters are sharded."""
        return self.kind in ("fsdp2", "hsdp")

    def start(self, device: torch.device) -> Mesh:
        """Join the other processes.

        Raises:
            ConfigError: the number of processes does not fit.
        """
        mesh = Mesh.start(
            device,
            replicas=self.replicas,
            sequence_size=self.sequence_size,
            timeout_seconds=self.timeout_seconds,
            alone=self.shards,
        )
        if self.kind == "single" and mesh.world_size > 1:
            raise ConfigError(
                f"parallel=single was asked for, and {mesh.world_size} processes were started. "
                "Choose parallel=ddp, fsdp2 or hsdp, or start one process."
            )
        return mesh

    def shape(self, module: nn.Module, mesh: Mesh, device: torch.device) -> Placed:
        """Do all that comes before the values; steps 1 to 5.

        Args:
            module: an objective: a module that is ``Shardable``; changed in place.
            mesh: from ``start``.
            device: where it will compute.
        """
        compute_dtype = self.compute_dtype_on(device)
        _set_master_dtype(module, self.master_dtype)
        if self.sequence_size > 1:
            _share_sequences(module, mesh, device)
        units = list(module.sharding_units())  # type: ignore[operator]
        for unit in units:
            recompute_block(unit, self.recompute)
        if self.compile_backend is not None:
            for unit in units:
                unit.compile(backend=self.compile_backend)
        if self.shards:
            self._shard(module, units, mesh, device, compute_dtype)
        return Placed(
            module=module,
            mesh=mesh,
            device=device,
            compute_dtype=compute_dtype,
            replicated=self.kind == "ddp",
            sum_gradients_once=self.sum_gradients_once,
            reshard_after_forward=self.reshard_after_forward,
            cpu_offload=self.cpu_offload,
        )

    def _shard(
        self,
        module: nn.Module,
        units: Sequence[nn.Module],
        mesh: Mesh,
        device: torch.device,
        compute_dtype: torch.dtype,
    ) -> None:
        narrow = compute_dtype is not torch.float32
        # Inputs are cast where they are multiplied (autocast), not at the border of a block: packs
        # carry places and counts beside them.
        precision = MixedPrecisionPolicy(
            param_dtype=compute_dtype if narrow else None,
            reduce_dtype=self.reduce_dtype,
            cast_forward_inputs=False,
        )
        offload = CPUOffloadPolicy(pin_memory=device.type != "cpu") if self.cpu_offload else None
        # Once: every call makes groups of ranks, and each of those takes memory on a device.
        ranks = mesh.shards(device)
        whole = {parameter for part in whole_parts(module) for parameter in part.parameters()}
        for unit in [*units, module]:
            fully_shard(
                unit,
                ignored_params=whole,
                mesh=ranks,
                mp_policy=precision,
                offload_policy=offload or OffloadPolicy(),
                # Parameters around the blocks are used at the beginning and at the end.
                reshard_after_forward=self.reshard_after_forward and unit is not module,
            )
        for part in module.modules():
            if isinstance(part, FSDPModule):
                # A loss is a share of the whole step's, so gradients are summed, not averaged.
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)

    def compute_dtype_on(self, device: torch.device) -> torch.dtype:
        """In which matrices are multiplied on a device."""
        if self.compute_dtype == "auto":
            return platform_of(device).compute_dtype
        return getattr(torch, self.compute_dtype)

    def _check(self) -> None:
        if self.replicas > 1 and self.kind != "hsdp":
            raise ConfigError(
                f"parallel.replicas={self.replicas} was asked for with kind={self.kind}. "
                "Set replicas=1, or choose parallel=hsdp."
            )
        if self.cpu_offload and not self.shards:
            raise ConfigError(
                f"parallel.cpu_offload=true was asked for with kind={self.kind}. "
                "Choose parallel=fsdp2 or hsdp, or set it to false."
            )
        if self.timeout_seconds <= 0:
            raise ConfigError(
                f"parallel.timeout_seconds={self.timeout_seconds} was asked for. Use more than 0."
            )


def _set_master_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Trained parameters in the dtype small steps survive in; frozen ones stay as they are."""
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype is not dtype:
            parameter.data = parameter.data.to(dtype)


def _share_sequences(module: nn.Module, mesh: Mesh, device: torch.device) -> None:
    sharing = [part for part in module.modules() if hasattr(part, "share_sequences")]
    if not sharing:
        raise ConfigError(
            f"parallel.sequence_size={mesh.sequence_size} was asked for, and no part of the model "
            "can share a sequence. Set it to 1."
        )
    exchange = SequenceExchange(group=mesh.sequence_group(device))
    for part in sharing:
        part.share_sequences(exchange)  # type: ignore[operator]


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(
            f"parallel.{name}={value!r} was asked for. Choose one of {', '.join(known)}."
        )
