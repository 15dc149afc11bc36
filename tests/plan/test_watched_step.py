"""A watched step knows what was there, and counts micro-batches it has not run."""

import pytest
import torch
from torch import nn

from mllm_npu.batch import Losses
from mllm_npu.device.allocator import Blocks
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.placed import Placed
from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.plan.fake_device import FakeDevice
from mllm_npu.plan.part_watch import PartWatch
from mllm_npu.plan.watched_step import WatchedStep
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.update import Update


def make_update(device):
    with torch.device("meta"):
        objective = MultimodalObjective(model=tiny_seed(), trainable=["language_model.*"])
    device.take(objective)
    with device():
        return Update(
            placed=Placed(module=objective, mesh=Mesh.single(), device=torch.device("cpu")),
            optimizer=AdamW(lr=1.0),
            faults=FaultPolicy(),
            clip_grad_norm=1.0,
            ema_decay=0.9,
            seed=0,
        )


def watched(objective: nn.Module, micro_batches=1):
    return WatchedStep(
        parts=PartWatch(objective), blocks=Blocks(grain=1), world=1, micro_batches=micro_batches
    )


def test_what_lies_there_before_a_step_has_its_kind():
    device = FakeDevice(kind="cpu")
    update = make_update(device)
    step = watched(update.objective)
    with device(), step(update):
        pass
    now = step.ledger.now().by_kind
    trained = sum(parameter.numel() for parameter in update.parameters.values()) * 4
    count = len(update.parameters)
    assert now["optimizer"] == 3 * trained + 4 * count  # two moments, the average, step numbers
    tensors = [*update.objective.parameters(), *update.objective.buffers()]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    assert now["parameters"] == sum(storages.values())
    assert now["temporary"] == 0


def test_gradients_and_the_phase_of_the_optimizer():
    device = FakeDevice(kind="cpu")
    update = make_update(device)
    step = watched(update.objective)
    parameter = next(iter(update.parameters.values()))
    with device(), step(update):
        parameter.grad = torch.empty_like(parameter)
        with step.optimizing(update):
            assert step.parts.now() == ("optimizer", "optimizer")
        assert step.parts.now()[1] == "forward"
    assert step.ledger.now().by_kind["gradients"] == parameter.nbytes


@pytest.mark.parametrize(
    ("micro_batches", "weights"),
    [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (9, [1, 7, 1])],
)
def test_one_stands_for_all_between_the_first_and_the_last(micro_batches, weights):
    step = watched(make_update(FakeDevice(kind="cpu")).objective, micro_batches)
    meter = step.meter(len(weights))
    seen = []
    for _ in weights:
        seen.append(step.log.weight)
        meter.add(1, tiny_batch(), Losses(terms={}), torch.zeros(()))
    assert seen == weights
    assert step.log.weight == 1
