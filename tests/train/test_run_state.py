import pytest
import torch

from mllm_npu.distributed.checkpoint import Checkpoints, Snapshot
from mllm_npu.errors import CheckpointError
from mllm_npu.train.ema import Ema
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.run_state import RunState, installed_versions

TIMES = {"seconds": 10.0, "cpu_seconds": 5.0}


@pytest.fixture
def make(make_model, make_batches):
    def make_state(*, ema=True, trainable=("projector.*",)):
        objective = MultimodalObjective(model=make_model(), trainable=trainable)
        parameters = objective.trained_parameters()
        return RunState(
            objective=objective,
            optimizer=AdamW(lr=0.1).build(parameters),
            ema=Ema(parameters, decay=0.9) if ema else None,
            batches=make_batches(),
            device=torch.device("cpu"),
        )

    return make_state


def train_step(state):
    objective = state.objective.eval()
    batch = next(iter(state.batches))
    objective(batch).total(objective.counts(batch)).backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.ema is not None:
        state.ema.update()


def test_everything_comes_back(make, tmp_path):
    state, other = make(), make()
    train_step(state)
    checkpoints = Checkpoints(folder=tmp_path)
    state.save(checkpoints, 1, times=TIMES)
    snapshot = checkpoints.load()
    assert other.restore(snapshot) == TIMES
    assert other.batches.consumed == 1
    assert other.ema.num_updates == 1
    expected = torch.rand(3)
    other.restore(snapshot)
    assert torch.equal(torch.rand(3), expected)
    for one in (state, other):
        train_step(one)
    weights = [one.objective.model.projector.weight for one in (state, other)]
    assert torch.equal(*weights)
    assert snapshot.values["versions"] == installed_versions()


def test_calibrated_buffers_are_part_of_it(make, make_batch, tmp_path):
    state, other = make(), make()
    state.objective.prepare(iter([make_batch("d")]))
    checkpoints = Checkpoints(folder=tmp_path)
    state.save(checkpoints, 1, times=TIMES)
    other.restore(checkpoints.load())
    drawn = state.objective.model.drawn_features
    assert torch.equal(other.objective.model.drawn_features.mean, drawn.mean)
    assert other.objective.model.drawn_features.calibrated


def test_other_parameters_or_averages_are_refused(make, tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    make(ema=False).save(checkpoints, 1, times=TIMES)
    snapshot = checkpoints.load()
    with pytest.raises(CheckpointError, match="asked for its ema"):
        make().restore(snapshot)
    with pytest.raises(CheckpointError, match=r"new here \['output_projector"):
        make(ema=False, trainable=["projector.*", "output_projector.*"]).restore(snapshot)


def test_a_state_that_lacks_something_is_refused(make, tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    state = make()
    state.save(checkpoints, 1, times=TIMES)
    whole = checkpoints.load()
    values = {name: value for name, value in whole.values.items() if name != "data"}
    with pytest.raises(CheckpointError, match="has no 'data'"):
        state.restore(Snapshot(step=1, tensors=whole.tensors, values=values))


def test_versions_name_torch_and_python():
    assert installed_versions()["torch"].startswith("2.")
    assert "python" in installed_versions()
