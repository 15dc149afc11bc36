"""Tensors come back as they were, from memory, from files and from one file."""

import pytest
import torch
from safetensors.torch import load_file

from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.errors import DataError

VALUES = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b/c": torch.tensor(2.5, dtype=torch.bfloat16),
    "d": torch.tensor([True, False]),
    "e": torch.arange(3),
    "empty": torch.zeros(0, 4),
    "bytes": torch.arange(5, dtype=torch.uint8),
}


@pytest.fixture(params=[1.0, 0.0, 40 / 2**30], ids=["memory", "files", "both"])
def store(request):
    with TensorStore(memory_gib=request.param) as store:
        for name, tensor in VALUES.items():
            store.put(name, tensor)
        yield store


def check(store):
    assert set(store) == set(VALUES)
    for name, tensor in VALUES.items():
        assert name in store
        found = store.get(name)
        assert found.dtype is tensor.dtype
        assert torch.equal(found, tensor), name


def test_what_was_put_is_there(store):
    check(store)
    assert "other" not in store


def test_it_is_a_copy():
    with TensorStore(memory_gib=1) as store:
        tensor = torch.ones(3)
        store.put("x", tensor)
        tensor.zero_()
        assert torch.equal(store.get("x"), torch.ones(3))


def test_gaps_and_gradients_are_left_behind():
    with TensorStore(memory_gib=0) as store:
        tensor = torch.arange(6.0, requires_grad=True)
        store.put("x", tensor.view(2, 3).T)
        found = store.get("x")
        assert not found.requires_grad
        assert torch.equal(found, tensor.detach().view(2, 3).T)


def test_files_hold_what_memory_does_not_and_go_with_it():
    store = TensorStore(memory_gib=100 / 2**30)
    for number in range(10):
        store.put(str(number), torch.full((10,), float(number)))
    assert store.num_files == 3
    folder = store._folder.name
    assert torch.equal(store.get("0"), torch.zeros(10))
    store.close()
    from pathlib import Path

    assert not Path(folder).exists()
    assert list(store) == []


def test_all_may_be_written_as_one_file(store, tmp_path):
    path = tmp_path / "new" / "all.safetensors"
    store.write(path, {"text": "ä"})
    assert [file.name for file in path.parent.iterdir()] == ["all.safetensors"]
    for name, tensor in load_file(path).items():
        assert torch.equal(tensor, VALUES[name])
    opened, texts = TensorStore.open(path)
    assert texts == {"text": "ä"}
    check(opened)
    again = tmp_path / "again.safetensors"
    opened.write(again, texts)
    assert again.read_bytes() == path.read_bytes()
    opened.close()
    assert path.is_file()


def test_complex_numbers_can_be_written(tmp_path):
    with TensorStore(memory_gib=1) as store:
        store.put("z", torch.tensor([1 + 2j, 3 - 1j]))
        store.write(tmp_path / "z.safetensors", {})
    header = (tmp_path / "z.safetensors").read_bytes()
    assert b'"C64"' in header


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="was written with --record"):
        TensorStore.open(path)


def test_what_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with TensorStore(memory_gib=1) as store, pytest.raises(DataError, match="cannot be written"):
        store.write(tmp_path / "file" / "x.safetensors", {})


def test_a_full_disk_is_told_with_a_remedy(tmp_path, monkeypatch):
    from mllm_npu.compare import tensor_store

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(tensor_store, "save_file", fail)
    with TensorStore(memory_gib=0) as store, pytest.raises(DataError, match="Raise --memory-gib"):
        store.put("x", torch.ones(1))
