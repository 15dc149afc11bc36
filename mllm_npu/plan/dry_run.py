"""Run one training step on imagined ranks and an imagined device, and say what it does and holds.

It is the real model and the real training code: only tensors have no values (`fake_device`) and
exchanges do nothing (`fake_ranks`). Operations are computed in the ways of the device that is
planned for, with stand-ins that keep for the backward pass what its fused kernels keep.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mllm_npu.batch import Batch
from mllm_npu.build import build_objective, build_part
from mllm_npu.composition import StartingValues
from mllm_npu.config import Config, plain
from mllm_npu.device.allocator import blocks_of
from mllm_npu.device.platform import platform_named
from mllm_npu.device.transfer import on_host
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError
from mllm_npu.plan.fake_device import HOST, FakeDevice
from mllm_npu.plan.fake_pack import PackSize, PackSource
from mllm_npu.plan.fake_ranks import FakeMesh, fake_ranks
from mllm_npu.plan.memory_ledger import HELD, Kind
from mllm_npu.plan.part_watch import OUTSIDE, PartWatch
from mllm_npu.plan.traced_step import Memory, TracedStep
from mllm_npu.plan.watched_step import WatchedStep
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.feed import share_packs
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.optimizer import optimizer_tensors
from mllm_npu.train.update import Update

_HOST_NUMBER = 8
"""Bytes of a number the ranks sum on the host."""
_MODELS = str(Path("mllm_npu") / "models")
_TRACED = 3
"""Micro-batches that are run: the first, one that stands for all between, and the last."""


def trace_step(
    config: Config,
    *,
    ranks: int,
    device: str,
    pack: PackSize | None = None,
    batches: Sequence[Batch] | None = None,
) -> TracedStep:
    """Run a training step without memory and without other ranks.

    Args:
        config: of a stage; its tokenizer, data and weights need not be there.
        ranks: of the run.
        device: kind of accelerator that is planned for, as torch names it; need not be there.
        pack: what a pack holds; None takes it from the configuration.
        batches: packs to run instead, on the host; each micro-batch takes the next one.

    Returns:
        What rank 0 does and holds in one step.

    Raises:
        ConfigError: settings that do not fit together, or ranks that do not fit them.
        MllmNpuError: a part that cannot be built.
    """
    run = _DryRun(config, ranks=ranks, device=device)
    with run.open():
        return run.trace(pack, batches)


class _DryRun:
    """A run that is only imagined; see `trace_step`."""

    def __init__(self, config: Config, *, ranks: int, device: str) -> None:
        self.config = _without_weights(config)
        self.ranks = ranks
        self.parallel: Parallel = build_part(config.parallel)
        if self.parallel.compute_dtype == "auto":
            dtype = platform_named(device).compute_dtype
            self.parallel.compute_dtype = str(dtype).removeprefix("torch.")
        # A compiled block runs the kernels it would run without, as far as memory goes.
        self.parallel.compile_backend = None
        self.device = FakeDevice(kind=device)
        self.mesh: FakeMesh

    def open(self) -> ExitStack:
        """The imagined ranks, until it is closed."""
        stack = ExitStack()
        self.mesh = stack.enter_context(fake_ranks(self.parallel, self.ranks))
        return stack

    def trace(self, pack: PackSize | None, batches: Sequence[Batch] | None) -> TracedStep:
        objective = self._compose()
        packs = PackSource(self.config, objective.model, size=pack, given=batches)
        train = plain(self.config.train)
        share = share_packs(
            train.get("packs_per_step"), train.get("accumulate", 1), self.mesh.data_size
        )
        warming, traced = packs.take(1), packs.take(min(share, _TRACED))
        # Before the parameters are fake: each would be cut into a fake tensor per rank.
        placed = self.parallel.shape(objective, self.mesh, HOST)
        self.device.take(objective)
        with self.device():
            update = self._start(placed, objective, train)
            parts = PartWatch(objective)
            with parts(), _unsummed(update.placed), _naming(parts):
                self._step(update, warming)
            watched = WatchedStep(
                parts=parts,
                blocks=blocks_of(self.device.kind),
                world=self.ranks,
                micro_batches=share,
            )
            self.device.on_copy = lambda tensor: watched.ledger.note(tensor, "inputs")
            with watched(update):
                self._step(update, traced, watched)
            return self._result(update, traced, watched)

    def _compose(self) -> Objective:
        with torch.device("meta"):
            objective = build_objective(self.config, StartingValues(self.config), None)
        if not isinstance(objective, Objective):
            raise ConfigError(
                f"objective gives a {type(objective).__name__}; only an Objective can be planned."
            )
        return objective

    def _start(self, placed: Placed, objective: Objective, train: dict[str, Any]) -> Update:
        # It is there already, and fake parameters cannot be moved in place.
        objective.to = lambda *args, **settings: objective  # type: ignore[method-assign]
        placed.settle()
        del objective.to
        clip = train.get("clip_grad_norm", 1.0)
        update = Update(
            placed=placed,
            optimizer=build_part(train["optimizer"]),
            faults=_NoFaults(),
            clip_grad_norm=float("inf") if clip is None else clip,
            ema_decay=train.get("ema_decay"),
            seed=0,
        )
        objective.train()
        return update

    def _step(
        self, update: Update, packs: Sequence[Batch], watched: WatchedStep | None = None
    ) -> None:
        counts: dict[str, float] = {}
        for batch in packs:
            for name, count in on_host(update.objective.counts)(batch).items():
                counts[name] = counts.get(name, 0.0) + count * self.mesh.data_size
        numbers = {"counts": counts, "step": 1, "first_pack": 0}
        if watched is None:
            update.backward(packs, meter=LossMeter(), **numbers)  # type: ignore[arg-type]
            update.step(1.0)
            return
        # The loop sums what counts, and whether to stop, on the host.
        size = _HOST_NUMBER * (len(counts) + 1)
        watched.log.add_exchange("all_reduce", "world", self.ranks, size)
        meter = watched.meter(len(packs))
        update.backward(packs, meter=meter, **numbers)  # type: ignore[arg-type]
        with watched.optimizing(update):
            meter.end_step(1, update.step(1.0))

    def _result(self, update: Update, packs: Sequence[Batch], watched: WatchedStep) -> TracedStep:
        ledger, log, share = watched.ledger, watched.log, watched.micro_batches
        away: tuple[Kind, ...] = HELD if self.parallel.cpu_offload else ()
        peak, now = ledger.peak(leave_out=away), ledger.now(leave_out=away)
        everything = ledger.now()
        reserved = ledger.reserved(leave_out=away) if self.device.is_accelerator else peak.total
        parameters = dict(update.objective.named_parameters())
        return TracedStep(
            operations=log.operations(),
            exchanges=log.exchanges(),
            memory=Memory(
                steady=now.total,
                peak=peak.total,
                at_peak={str(kind): size for kind, size in peak.by_kind.items()},
                parameters_by_part=_bytes_by_part(parameters.values(), log.parts),
                margin=max(0, reserved - peak.total),
            ),
            host_bytes=everything.total - now.total,
            tokens=_over_step([batch.num_tokens for batch in packs], share),
            tiles=_over_step([int(batch.tiles.shape[0]) for batch in packs], share),
            micro_batches=share,
            ranks=self.ranks,
            data_ranks=self.mesh.data_size,
            num_parameters=sum(p.numel() for p in parameters.values()),
            num_trained=sum(p.numel() for p in update.parameters.values()),
            model_flops=log.needed_flops,
            checkpoint_bytes=_checkpoint_bytes(update, plain(self.config.train)),
        )


@contextmanager
def _naming(watch: PartWatch) -> Iterator[None]:
    """Say which part does not run without values, and where.

    Raises:
        ConfigError: one does not.
    """
    try:
        yield
    except RuntimeError as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _MODELS in frame.filename]
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        raise ConfigError(
            f"A dry run was asked for, and {watch.latest}, or what follows it, does not run in it"
            f"{where}: {error}. Choose another part, or other settings, such as "
            "parallel.compute_dtype; what asks tensors for their values cannot be planned."
        ) from error


def _unsummed(placed: Placed) -> AbstractContextManager[object]:
    """Let replicas keep their gradients: behind a sum they ask tensors for values to lay out."""
    call = placed._call
    return call.no_sync() if isinstance(call, DistributedDataParallel) else nullcontext()


class _NoFaults(FaultPolicy):
    """Nothing goes wrong in a step without values, and nothing of it can be asked."""

    def blocks(self, grad_norm: Tensor) -> Tensor:
        """Never."""
        return torch.tensor(0.0)


def _over_step(counts: Sequence[int], micro_batches: int) -> int:
    """The sum over a step of which a few micro-batches were run."""
    return sum(counts) + (micro_batches - len(counts)) * counts[-2 if len(counts) > 1 else -1]


def _bytes_by_part(parameters: Any, watch: PartWatch) -> dict[str, int]:
    found: dict[str, int] = {}
    for parameter in parameters:
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        name = watch.parts.get(id(parameter), OUTSIDE)
        found[name] = found.get(name, 0) + local.numel() * local.element_size()
    return found


def _checkpoint_bytes(update: Update, train: dict[str, Any]) -> int:
    """Of all ranks together."""
    trained = {id(parameter) for parameter in update.parameters.values()}
    tensors = [
        p
        for p in update.objective.parameters()
        if train.get("save_frozen", True) or id(p) in trained
    ]
    tensors += optimizer_tensors(update.optimizer).values()  # type: ignore[arg-type]
    if update.ema is not None:
        tensors += update.ema.averages.values()  # type: ignore[arg-type]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _without_weights(config: Config) -> Config:
    """The configuration without folders of weights that are not here, if sizes stand beside them.

    Raises:
        ConfigError: a part whose sizes are in such a folder alone.
    """
    copied: Config = config.copy()
    _drop_paths(copied.models, "models")
    return copied


def _drop_paths(node: Any, where: str) -> None:
    for key in list(node):
        child = node._get_node(key)
        if hasattr(child, "keys"):
            _drop_paths(child, f"{where}.{key}")
    path = node.get("path") if "path" in node else None
    if path is None or Path(str(path)).exists():
        return
    if "config" not in node and "folder" in str(node.get("_target_", "")).lower():
        raise ConfigError(f"{where}.path={path} is not there.")
    node["path"] = None
