"""A side comes back from its file: calls, tensors, packs, buffers."""

import json

import pytest
import torch

from mllm_npu.compare.record_file import Record, read_record, write_record
from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.errors import DataError
from mllm_npu.models.tiny import tiny_batch


@pytest.fixture
def record(tools):
    recording = tools.record(tools.Toy(), isolate=True)
    recording.facts.overrides = ["seed=1"]
    return Record(
        recording=recording,
        packs=[tiny_batch(seed=0), tiny_batch(seed=1, draws=False)],
        buffers={"model.drawn_features.std": torch.full((3,), 2.0)},
    )


def test_it_comes_back_as_it_was(record, tmp_path):
    path = tmp_path / "a.safetensors"
    write_record(path, record)
    found = read_record(path)
    assert found.recording.calls == record.recording.calls
    assert found.recording.facts == record.recording.facts
    assert list(found.recording.entries) == list(record.recording.entries)
    for key, entry in found.recording.entries.items():
        known = record.recording.tensor(record.recording.entries[key])
        assert torch.equal(found.recording.tensor(entry), known)
    assert torch.equal(found.buffers["model.drawn_features.std"], torch.full((3,), 2.0))
    for pack, known in zip(found.packs, record.packs, strict=True):
        for name in type(known).__dataclass_fields__:
            a, b = getattr(pack, name), getattr(known, name)
            assert torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b, name
            assert type(a) is type(b)


def test_a_side_is_compared_with_its_file(record, tools, tmp_path):
    path = tmp_path / "a.safetensors"
    write_record(path, record)
    from mllm_npu.compare.bounds import Bounds
    from mllm_npu.compare.comparison import Comparison
    from mllm_npu.compare.verdict import judge

    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.up"), lambda x: x * 1.01)
    recording = read_record(path).recording
    comparison = Comparison(recording, bounds=Bounds(), compute_dtype=torch.float32)
    tools.observe(b, comparison)
    tools.observe_alone(b, recording, comparison)
    verdict = judge(comparison)
    assert verdict.first.module == "blocks.1.up"
    assert [finding.module for finding in verdict.guilty] == ["blocks.1.up"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is no side of a comparison"),
        ("no json", "is no side of a comparison"),
        (json.dumps({"format": 1}), "is no side of a comparison"),
        (json.dumps({"format": 99}), "has format 99, this version reads 1"),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    path = tmp_path / "x.safetensors"
    with TensorStore(memory_gib=1) as store:
        store.put("weight", torch.ones(2))
        store.write(path, {} if text is None else {"parity": text})
    with pytest.raises(DataError, match=told):
        read_record(path)
