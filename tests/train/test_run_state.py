import json

import pytest
import torch

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.errors import CheckpointError
from mllm_npu.train.faults import FaultPolicy, StepOutcome
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW, optimizer_tensors
from mllm_npu.train.run_state import RunState, installed_versions
from mllm_npu.train.update import Update

TIMES = {"seconds": 10.0, "cpu_seconds": 5.0, "total/tokens": 7.0}


@pytest.fixture
def make(make_model, make_batches, put_in_place, tmp_path):
    def make_state(*, ema=True, trainable=("projector.*",), model=None, **options):
        objective = MultimodalObjective(model=model or make_model(), trainable=trainable)
        update = Update(
            placed=put_in_place(objective),
            optimizer=AdamW(lr=0.1),
            faults=FaultPolicy(spike="skip"),
            clip_grad_norm=1.0,
            ema_decay=0.9 if ema else None,
            seed=0,
        )
        checkpoints = Checkpoints(folder=tmp_path, asynchronous=False)
        return RunState(update=update, batches=make_batches(), checkpoints=checkpoints, **options)

    return make_state


def train_step(state):
    batch = next(iter(state.batches))
    counts = state.update.objective.counts(batch)
    number = state.batches.consumed
    state.update.backward([batch], counts, step=number, first_pack=number, meter=LossMeter())
    state.update.step(1.0)


def everything(state):
    update = state.update
    averages = {f"ema/{name}": value for name, value in update.ema.averages.items()}
    tensors = {**update.objective.state_dict(), **optimizer_tensors(update.optimizer), **averages}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_everything_comes_back_and_goes_on_alike(make, make_model):
    state = make()
    for _ in range(3):
        train_step(state)
    outcome = StepOutcome(step=1, loss=1.0, grad_norm=float("nan"), batches=(), own_losses=())
    state.update.faults.judge([outcome])
    saved = everything(state)
    state.save(3, times=TIMES)
    other = make(model=make_model(seed=5))
    assert other.restore(3) == TIMES
    assert_equal(everything(other), saved)
    assert other.batches.consumed == 3
    assert other.update.ema.num_updates == 3
    assert other.update.faults.counts["not_finite"] == 1
    for one in (state, other):
        train_step(one)
    assert_equal(everything(other), everything(state))


def test_random_numbers_go_on_where_they_were(make):
    state = make()
    state.save(1, times=TIMES)
    expected = torch.rand(3)
    torch.rand(5)
    make().restore(1)
    found = torch.rand(3)
    assert torch.equal(found, expected)


def test_a_rollback_keeps_the_place_in_the_data_and_the_count_of_faults(make):
    state = make()
    train_step(state)
    saved = everything(state)
    state.save(1, times=TIMES)
    train_step(state)
    bad = StepOutcome(step=2, loss=float("nan"), grad_norm=1.0, batches=(), own_losses=())
    state.update.faults.judge([bad])
    state.restore(1, keep_data=True)
    assert_equal(everything(state), saved)
    assert state.batches.consumed == 2
    assert state.update.faults.counts["not_finite"] == 1
    state.restore(1)
    assert state.batches.consumed == 1
    assert state.update.faults.counts["not_finite"] == 0


def test_calibrated_buffers_are_part_of_it(make, make_batch):
    state, other = make(), make()
    state.update.objective.prepare(iter([make_batch("d")]))
    state.save(1, times=TIMES)
    other.restore(1)
    drawn, loaded = (one.update.objective.model.drawn_features for one in (state, other))
    assert torch.equal(loaded.mean, drawn.mean)
    assert loaded.calibrated


def test_what_is_frozen_can_be_left_out_and_then_stays_as_it_is(make, make_model):
    whole, thin = make(), make(save_frozen=False)
    for step, state in enumerate((whole, thin)):
        state.save(step, times=TIMES)
    stored = [set(thin.checkpoints.shapes(step)) for step in (0, 1)]
    left_out = {name.removeprefix("objective/model.") for name in stored[0] - stored[1]}
    frozen = {
        name
        for name, parameter in thin.update.objective.model.named_parameters()
        if not parameter.requires_grad
    }
    assert left_out == frozen
    assert "objective/model.drawn_features.mean" in stored[1]
    other = make(save_frozen=False, model=make_model(seed=5))
    encoder = other.update.objective.model.vision_encoder.layer.weight
    before = encoder.clone()
    other.restore(1)
    assert torch.equal(encoder, before)
    trained = other.update.objective.model.projector.weight
    assert torch.equal(trained, thin.update.objective.model.projector.weight)
    with pytest.raises(CheckpointError, match="missing in the checkpoint: objective/model"):
        whole.restore(1)


@pytest.mark.parametrize(
    ("saved", "asked", "message"),
    [
        ({"ema": False}, {}, r"missing in the checkpoint: ema/projector\.weight"),
        ({}, {"ema": False}, r"only in the checkpoint: ema/projector\.weight"),
        ({}, {"trainable": ["projector.*", "output_projector.*"]}, r"new here \['output_proj"),
        ({}, {"trainable": ["projector.bias"]}, r"only there \['projector\.weight'\]"),
    ],
)
def test_other_parameters_or_averages_are_refused_and_nothing_changes(make, saved, asked, message):
    make(**saved).save(1, times=TIMES)
    state = make(**asked)
    before = state.update.objective.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    with pytest.raises(CheckpointError, match=message):
        state.restore(1)
    assert_equal(state.update.objective.state_dict(), before)
    assert state.batches.consumed == 0


def test_another_shape_is_refused(make, make_model):
    make().save(1, times=TIMES)
    model = make_model()
    model.projector = torch.nn.Linear(6, 8, bias=True)
    model.language_model.layer = torch.nn.Linear(8, 9)
    with pytest.raises(CheckpointError, match=r"layer\.weight \[8, 8\] instead of \[9, 8\]"):
        make(model=model).restore(1)


@pytest.mark.parametrize("lacking", ["data", "faults", "times", "trained", "ema_updates"])
def test_a_state_that_lacks_something_is_refused(make, tmp_path, lacking):
    state = make()
    state.save(1, times=TIMES)
    file = tmp_path / "step-00000001" / "state.json"
    content = json.loads(file.read_text())
    del content["values"][lacking]
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"step 1 has no '{lacking}'"):
        state.restore(1)


def test_a_checkpoint_says_which_versions_wrote_it(make):
    state = make()
    state.save(1, times=TIMES)
    values = state.checkpoints.values(1)
    assert values["versions"] == installed_versions()
    assert values["world_size"] == 1
    assert installed_versions()["torch"].startswith("2.")
    assert "python" in installed_versions()
