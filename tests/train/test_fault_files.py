import json

import pytest
import torch
from safetensors.torch import load_file

from mllm_npu.errors import DataError
from mllm_npu.train.fault_files import dump_fault
from mllm_npu.train.faults import Fault, StepOutcome


@pytest.fixture
def fault(make_batch):
    batches = (make_batch("rdb", seed=1), make_batch("r", seed=2))
    outcome = StepOutcome(
        step=12, loss=float("nan"), grad_norm=3.5, batches=batches, own_losses=(float("nan"), 0.5)
    )
    return Fault(outcome=outcome, kind="not_finite", action="skip", limit=float("inf"))


def test_every_micro_batch_is_there_with_the_names_of_its_samples(tmp_path, fault):
    folder = dump_fault(tmp_path, fault, rank=3)
    assert folder == tmp_path / "step-00000012-rank3"
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    batches = about.pop("batches")
    assert about == {
        "step": 12,
        "rank": 3,
        "kind": "not_finite",
        "action": "skip",
        "loss": "nan",
        "grad_norm": "3.5",
        "limit": "inf",
    }
    assert [batch["own_loss"] for batch in batches] == ["nan", "0.5"]
    assert [batch["keys"] for batch in batches] == [["1-0", "1-1", ""], ["2-0"]]
    assert batches[0]["sources"] == ["readings", "drawings", ""]
    assert batches[0]["sequence_ends"] == list(fault.outcome.batches[0].sequence_ends)
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json",
        "batch-0.safetensors",
        "batch-1.safetensors",
    ]


def test_the_tensors_are_those_the_model_saw(tmp_path, fault):
    folder = dump_fault(tmp_path, fault, rank=0)
    for number, batch in enumerate(fault.outcome.batches):
        stored = load_file(folder / f"batch-{number}.safetensors")
        assert {"input_ids", "tiles", "targets", "draw_weights"} <= set(stored)
        assert "pictures" not in stored
        for name, tensor in stored.items():
            assert torch.equal(tensor, getattr(batch, name)), name


def test_views_of_one_memory_are_written_apart(tmp_path, fault, make_batch):
    batch = make_batch("rr")
    object.__setattr__(batch, "targets", batch.input_ids[:2])
    object.__setattr__(batch, "read_slots", batch.read_slots.T)
    outcome = StepOutcome(step=1, loss=1.0, grad_norm=1.0, batches=(batch,), own_losses=(1.0,))
    fault = Fault(outcome=outcome, kind="spike", action="skip", limit=0.5)
    stored = load_file(dump_fault(tmp_path, fault, rank=0) / "batch-0.safetensors")
    assert torch.equal(stored["targets"], batch.targets)
    assert torch.equal(stored["read_slots"], batch.read_slots)


def test_the_same_step_may_go_wrong_again_after_a_rollback(tmp_path, fault):
    assert dump_fault(tmp_path, fault, rank=0) == dump_fault(tmp_path, fault, rank=0)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path, fault):
    (tmp_path / "file").touch()
    (tmp_path / "step-00000012-rank1" / "batch-0.safetensors").mkdir(parents=True)
    for folder, rank in ((tmp_path / "file", 0), (tmp_path, 1)):
        with pytest.raises(DataError, match=rf"step 12 .*rank{rank}.*most_dumps=0"):
            dump_fault(folder, fault, rank=rank)
