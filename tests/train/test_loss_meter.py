import math

import pytest
import torch

from mllm_npu.batch import Losses, LossTerm
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.train.loss_meter import LossMeter

NAN = float("nan")


def make_losses(total, count, *, per_target=None, per_drawn=None):
    term = LossTerm(total=torch.tensor(total), count=count)
    return Losses(terms={"language": term}, per_target=per_target, per_drawn=per_drawn)


@pytest.fixture
def mesh():
    return Mesh.single()


@pytest.fixture
def meter(make_batch):
    """Two updates, the first of two micro-batches."""
    meter = LossMeter()
    batch = make_batch("r", seed=1)
    meter.add(1, batch, make_losses(6.0, 3), torch.tensor(1.0))
    meter.add(1, make_batch("d", seed=2), make_losses(10.0, 1), torch.tensor(3.0))
    meter.end_step(1, torch.tensor(0.5))
    meter.add(2, batch, make_losses(0.0, 4), torch.tensor(2.0))
    meter.end_step(2, torch.tensor(1.5))
    return meter


def test_means_over_elements_and_steps(meter, mesh):
    meter.look(mesh)
    values = meter.read(mesh)
    assert values == {"loss": 3.0, "grad_norm": 1.0, "terms": {"language": 2.0}}
    assert meter.look(mesh) == []
    assert meter.read(mesh) == {}


def test_a_look_gives_each_update_once_with_its_batches(meter, mesh):
    first, second = meter.look(mesh)
    assert (first.step, first.loss, first.grad_norm) == (1, 4.0, 0.5)
    assert first.own_losses == (1.0, 3.0)
    assert [batch.keys for batch in first.batches] == [("1-0",), ("2-0",)]
    assert (second.step, second.loss, second.is_finite) == (2, 2.0, True)
    assert meter.look(mesh) == []


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (1.0, math.inf)])
def test_a_bad_update_can_be_dropped_from_the_means(meter, mesh, make_batch, loss, norm):
    meter.add(3, make_batch("r", seed=3), make_losses(NAN, 1), torch.tensor(loss))
    meter.end_step(3, torch.tensor(norm))
    outcomes = meter.look(mesh)
    assert [outcome.is_finite for outcome in outcomes] == [True, True, False]
    meter.drop([3])
    assert meter.read(mesh) == {"loss": 3.0, "grad_norm": 1.0, "terms": {"language": 2.0}}


def test_where_every_update_was_dropped_there_is_nothing_to_say(mesh, make_batch):
    meter = LossMeter()
    meter.add(1, make_batch("r"), make_losses(NAN, 1), torch.tensor(NAN))
    meter.end_step(1, torch.tensor(NAN))
    meter.look(mesh)
    meter.drop([1])
    assert meter.read(mesh) == {}


def test_means_per_source_and_task(make_batch, mesh):
    meter = LossMeter()
    batch = make_batch("rdb")
    per_target = torch.tensor([1.0, 2.0, 3.0, 7.0, 7.0, 7.0])
    per_drawn = torch.tensor([5.0, 99.0])  # the second is the blank picture
    losses = make_losses(1.0, 6, per_target=per_target, per_drawn=per_drawn)
    meter.add(1, batch, losses, torch.tensor(1.0))
    meter.end_step(1, torch.tensor(1.0))
    meter.look(mesh)
    values = meter.read(mesh)
    assert values["loss_per_source"] == {"drawings": 7.0, "readings": 2.0}
    assert values["loss_per_task"] == {"draw": 7.0, "read": 2.0}
    assert values["drawn_loss_per_source"] == {"drawings": 5.0}
    assert values["drawn_loss_per_task"] == {"draw": 5.0}


def test_means_are_over_elements_of_all_batches_not_means_of_means(make_batch, mesh):
    meter = LossMeter()
    for step, values in ((1, [1.0, 1.0, 1.0]), (2, [4.0])):
        batch = make_batch("r", texts={0: [2] * len(values)})
        losses = make_losses(0.0, len(values), per_target=torch.tensor(values))
        meter.add(step, batch, losses, torch.tensor(1.0))
        meter.end_step(step, torch.tensor(1.0))
    meter.look(mesh)
    assert meter.read(mesh)["loss_per_source"] == {"readings": 1.75}


def test_a_term_without_elements_is_nothing(make_batch, mesh):
    meter = LossMeter()
    meter.add(1, make_batch("b"), make_losses(0.0, 0), torch.tensor(0.0))
    meter.add(1, make_batch("r"), make_losses(0.0, 2), torch.tensor(0.0))
    meter.end_step(1, torch.tensor(0.0))
    meter.look(mesh)
    assert meter.read(mesh)["terms"] == {"language": 0.0}


def test_names_with_slashes_stay_whole(make_batch, mesh):
    batch = make_batch("r")
    object.__setattr__(batch, "sources", ("web/captions/en",))
    meter = LossMeter()
    meter.add(1, batch, make_losses(3.0, 3, per_target=torch.ones(3)), torch.tensor(1.0))
    meter.end_step(1, torch.tensor(1.0))
    meter.look(mesh)
    assert meter.read(mesh)["loss_per_source"] == {"web/captions/en": 1.0}


def test_without_updates_terms_alone_are_read(make_batch, mesh):
    """Validation looks at losses without any update."""
    meter = LossMeter()
    meter.add(0, make_batch("r"), make_losses(6.0, 3), torch.tensor(1.0))
    assert meter.read(mesh) == {"terms": {"language": 2.0}}


def test_keeps_no_graph(make_batch, mesh):
    meter = LossMeter()
    weight = torch.ones((), requires_grad=True)
    losses = Losses(terms={"language": LossTerm(total=weight * 2, count=1)})
    meter.add(1, make_batch("r"), losses, weight * 2)
    meter.end_step(1, weight * 3)
    entry = meter._entries[0]
    assert not entry.loss.requires_grad
    assert not entry.losses.terms["language"].total.requires_grad
    assert not meter._norms[1].requires_grad
