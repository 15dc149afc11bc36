"""Make some updates of the weights, and tell their numbers and what they have changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.build import build_part
from mllm_npu.compare.bench import Bench
from mllm_npu.compare.recording import Event, Step
from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.compare.watch import Listener
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.update import Update


def make_updates(
    bench: Bench, packs: Sequence[Batch], listener: Listener, *, memory_gib: float
) -> list[Step]:
    """One update per pack, with the optimizer and the schedule of the run.

    Args:
        bench: of a side; its weights are changed.
        packs: on the host.
        listener: takes what all updates together have changed of each trained matrix; the
            gradient of a vector may cancel, and its update is chance then.
        memory_gib: of the weights as they were; what is more waits in files.

    Returns:
        Loss and gradient norm of each update.
    """
    settings = bench.config.train
    schedule = build_part(settings.schedule)
    limit = settings.get("clip_grad_norm")
    update = Update(
        placed=bench.placed,
        optimizer=build_part(settings.optimizer),
        faults=FaultPolicy(not_finite="skip"),
        clip_grad_norm=float("inf") if limit is None else limit,
        ema_decay=None,
        seed=bench.config.seed,
    )
    meter = LossMeter()
    with TensorStore(memory_gib=memory_gib) as before:
        matrices = {name: p for name, p in update.parameters.items() if p.dim() > 1}
        for name, parameter in matrices.items():
            before.put(name, parameter)
        for number, pack in enumerate(packs):
            with bench.running(number):
                counts = update.objective.counts(pack)
                update.backward([pack], counts, step=number + 1, first_pack=number, meter=meter)
                norm = update.step(schedule.factor(number, settings.max_steps))
            meter.end_step(number + 1, norm)
        for name, parameter in matrices.items():
            event = Event(kind="change", call=-1, module=name, count=1, path=name)
            listener.take(event, _change(parameter, before.get(name)))
    return [
        Step(step=outcome.step, loss=outcome.loss, grad_norm=outcome.grad_norm)
        for outcome in meter.look(bench.placed.mesh)
    ]


def _change(parameter: Tensor, before: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32) - before.to(torch.float32)
