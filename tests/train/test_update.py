import dataclasses

import pytest
import torch

from mllm_npu.train.faults import FaultPolicy, StepOutcome
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW, optimizer_tensors
from mllm_npu.train.update import Update

NAN = float("nan")
TRAINED = ["*", "!vision_encoder.*", "!image_decoder.*"]


@pytest.fixture
def make(make_model, put_in_place):
    def make_update(*, faults=None, ema_decay=None, clip=float("inf"), seed=0, **optimizer):
        objective = MultimodalObjective(model=make_model(normalize=False), trainable=TRAINED)
        return Update(
            placed=put_in_place(objective.train()),
            optimizer=AdamW(**{"lr": 0.1, "weight_decay": 0.0, **optimizer}),
            faults=faults or FaultPolicy(),
            clip_grad_norm=clip,
            ema_decay=ema_decay,
            seed=seed,
        )

    return make_update


def backward(update, *batches, step=1, first_pack=0):
    counts = {}
    for batch in batches:
        for name, count in update.objective.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + count
    meter = LossMeter()
    update.backward(batches, counts, step=step, first_pack=first_pack, meter=meter)
    return meter


def state_of(update):
    tensors = {**update.parameters, **optimizer_tensors(update.optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def spoil(update):
    next(iter(update.parameters.values())).grad.view(-1)[0] = NAN


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("after", [0, 2])
def test_a_bad_update_leaves_every_bit_of_weights_moments_and_steps(make, make_batch, fused, after):
    update = make(fused=fused, weight_decay=0.1)
    for number in range(after):
        backward(update, make_batch("rd", seed=number))
        update.step(1.0)
    before = state_of(update)
    assert sum(name.startswith("step/") for name in before) == len(update.parameters)
    backward(update, make_batch("rd", seed=9))
    spoil(update)
    norm = update.step(1.0)
    assert norm.isnan()
    now = state_of(update)
    assert [name for name, tensor in before.items() if not torch.equal(tensor, now[name])] == []
    assert all(p.grad is None for p in update.parameters.values())
    backward(update, make_batch("rd", seed=9))
    update.step(1.0)
    moved = state_of(update)
    steps = {float(tensor) for name, tensor in moved.items() if name.startswith("step/")}
    assert steps == {after + 1.0}
    assert not torch.equal(moved["projector.weight"], before["projector.weight"])
    assert all(tensor.isfinite().all() for tensor in moved.values())


def test_a_spike_is_left_out_like_what_is_no_number(make, make_batch):
    policy = FaultPolicy(spike="skip", spike_factor=2.0)
    update = make(faults=policy)
    outcome = StepOutcome(step=1, loss=1.0, grad_norm=1e-6, batches=(), own_losses=())
    policy.judge([outcome] * 20)
    before = state_of(update)
    backward(update, make_batch("rd"))
    assert update.step(1.0) > policy.limit
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(update).items())


def test_the_norm_is_the_one_before_clipping_over_all_that_is_trained(make, make_batch):
    update = make(clip=1e-3)
    backward(update, make_batch("rdr"))
    expected = torch.stack([p.grad.norm() for p in update.parameters.values()]).norm()
    seen = []
    step = update.optimizer.step

    def look():
        seen.append(torch.stack([p.grad.norm() for p in update.parameters.values()]).norm())
        step()

    update.optimizer.step = look
    torch.testing.assert_close(update.step(1.0), expected)
    assert seen[0] == pytest.approx(1e-3, rel=1e-2)


def test_micro_batches_add_up_to_one_pack_of_all(make, make_batch):
    one, two = make(), make()
    for update in (one, two):
        update.objective.eval()
    whole = make_batch("rr", texts={0: [2, 3], 1: [4]})
    backward(one, whole)
    halves = [make_batch("r", texts={0: [2, 3]}), make_batch("r", texts={0: [4]})]
    halves = [
        dataclasses.replace(half, tiles=whole.tiles[n : n + 1]) for n, half in enumerate(halves)
    ]
    backward(two, *halves)
    for name, parameter in one.parameters.items():
        torch.testing.assert_close(two.parameters[name].grad, parameter.grad)


def test_what_a_pack_draws_follows_from_the_seed_and_its_number_alone(make, make_batch):
    """Dropout is on; ranks and what was drawn before must not matter."""

    def gradient(seed, first_pack, *, drawn_before=0):
        update = make(seed=seed)
        torch.rand(drawn_before)
        backward(update, make_batch("rr"), first_pack=first_pack)
        return update.parameters["language_model.layer.weight"].grad

    assert torch.equal(gradient(0, 5), gradient(0, 5, drawn_before=3))
    assert not torch.equal(gradient(0, 5), gradient(0, 6))
    assert not torch.equal(gradient(0, 5), gradient(1, 5))


def test_packs_of_one_update_are_numbered_on(make, make_batch):
    batch = make_batch("rr")
    together, apart = make(), make()
    backward(together, batch, batch, first_pack=4)
    for number in (4, 5):
        counts = {name: 2 * n for name, n in apart.objective.counts(batch).items()}
        apart.backward([batch], counts, step=1, first_pack=number, meter=LossMeter())
    for name, parameter in together.parameters.items():
        torch.testing.assert_close(apart.parameters[name].grad, parameter.grad)


def test_rates_are_peak_times_schedule_times_what_faults_have_lowered(make, make_batch):
    update = make(faults=FaultPolicy(not_finite="lower", lower_factor=0.5))
    backward(update, make_batch("r"))
    update.step(0.5)
    assert update.lr == pytest.approx(0.05)
    update.faults.lr_factor = 0.5
    backward(update, make_batch("r"))
    update.step(0.5)
    assert update.lr == pytest.approx(0.025)


def test_averages_follow_the_weights(make, make_batch):
    update = make(ema_decay=0.9)
    before = update.parameters["projector.weight"].detach().clone()
    backward(update, make_batch("r"))
    update.step(1.0)
    now = update.parameters["projector.weight"].detach()
    expected = 0.1 * before + 0.9 * now
    torch.testing.assert_close(update.ema.averages["projector.weight"], expected)
    assert make().ema is None


def test_progress_says_step_phase_and_samples(make, make_batch):
    update = make()
    progress = update.placed.mesh.progress
    backward(update, make_batch("rdb", seed=3), step=7)
    assert (progress.step, progress.phase, progress.keys) == (7, "backward pass", ("3-0", "3-1"))
    update.step(1.0)
    assert progress.phase == "update"


def test_the_meter_gets_the_losses_of_every_micro_batch(make, make_batch):
    update = make()
    meter = backward(update, make_batch("r"), make_batch("d"), step=3)
    meter.end_step(3, torch.tensor(1.0))
    (outcome,) = meter.look(update.placed.mesh)
    assert outcome.step == 3
    assert len(outcome.batches) == 2
    assert outcome.loss == pytest.approx(sum(outcome.own_losses))


def test_gradients_can_be_forgotten(make, make_batch):
    update = make()
    backward(update, make_batch("r"))
    update.forget_gradients()
    assert all(p.grad is None for p in update.parameters.values())
