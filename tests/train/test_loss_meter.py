import pytest
import torch

from mllm_npu.batch import Losses, LossTerm
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import TrainingError
from mllm_npu.train.loss_meter import LossMeter


def make_losses(total, count, *, per_target=None, per_drawn=None):
    term = LossTerm(total=torch.tensor(total), count=count)
    return Losses(terms={"language": term}, per_target=per_target, per_drawn=per_drawn)


def test_means_over_elements_and_steps(make_batch):
    meter = LossMeter()
    batch = make_batch("r")
    meter.add(1, batch, make_losses(6.0, 3), torch.tensor(1.0))
    meter.add(1, batch, make_losses(10.0, 1), torch.tensor(3.0))
    meter.end_step(1, torch.tensor(0.5))
    meter.add(2, batch, make_losses(0.0, 4), torch.tensor(2.0))
    meter.end_step(2, torch.tensor(1.5))
    values = meter.read(Mesh.single())
    assert values == {"loss": 3.0, "grad_norm": 1.0, "terms": {"language": 2.0}}
    assert meter.read(Mesh.single()) == {}


def test_means_per_source_and_task(make_batch):
    meter = LossMeter()
    batch = make_batch("rdb")
    per_target = torch.tensor([1.0, 2.0, 3.0, 7.0, 7.0, 7.0])
    per_drawn = torch.tensor([5.0, 99.0])  # the second is the blank picture
    losses = make_losses(1.0, 6, per_target=per_target, per_drawn=per_drawn)
    meter.add(1, batch, losses, torch.tensor(1.0))
    meter.end_step(1, torch.tensor(1.0))
    values = meter.read(Mesh.single())
    assert values["loss_per_source"] == {"drawings": 7.0, "readings": 2.0}
    assert values["loss_per_task"] == {"draw": 7.0, "read": 2.0}
    assert values["drawn_loss_per_source"] == {"drawings": 5.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_sources_and_keys(make_batch, bad):
    meter = LossMeter()
    meter.add(6, make_batch("r", seed=1), make_losses(1.0, 1), torch.tensor(1.0))
    meter.end_step(6, torch.tensor(1.0))
    meter.add(7, make_batch("rdb", seed=2), make_losses(bad, 1), torch.tensor(bad))
    meter.end_step(7, torch.tensor(1.0))
    with pytest.raises(
        TrainingError, match=r"loss of step 7 is .*readings, drawings: keys 2-0, 2-1"
    ):
        meter.check()


def test_a_gradient_that_is_not_finite_names_its_step(make_batch):
    meter = LossMeter()
    meter.add(3, make_batch("r" * 12, seed=4), make_losses(1.0, 1), torch.tensor(1.0))
    meter.end_step(3, torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"gradient norm of step 3.*4-7 and 4 more"):
        meter.read(Mesh.single())


def test_keeps_no_graph(make_batch):
    meter = LossMeter()
    weight = torch.ones((), requires_grad=True)
    losses = Losses(terms={"language": LossTerm(total=weight * 2, count=1)})
    meter.add(1, make_batch("r"), losses, weight * 2)
    meter.end_step(1, weight * 3)
    entry = meter._entries[0]
    assert not entry.loss.requires_grad
    assert not entry.losses.terms["language"].total.requires_grad
