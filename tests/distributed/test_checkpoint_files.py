import json

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from mllm_npu.distributed.checkpoint_files import (
    INDEX_FILE,
    ShardReader,
    ShardWriter,
    StoredShape,
    read_index,
    stored_shapes,
    sync_to_disk,
)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def tensors():
    return {"weight": torch.arange(6.0).view(3, 2), "count": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path, tensors):
    committed = []
    writer = ShardWriter(tmp_path / "run", commit=lambda: committed.append(read(tmp_path)))
    dcp.save(tensors, storage_writer=writer, no_dist=True)
    # The index is there before it is called.
    assert committed == [["weight", "count"]]
    return tmp_path / "run"


def read(tmp_path):
    return list(json.loads((tmp_path / "run" / INDEX_FILE).read_text())["tensors"])


def test_the_index_says_where_every_piece_lies(folder):
    (shard,) = folder.glob("*.safetensors")
    assert read_index(folder) == {
        "weight": {
            "dtype": "float32",
            "shape": [3, 2],
            "pieces": [{"file": shard.name, "offsets": [0, 0], "sizes": [3, 2]}],
        },
        "count": {
            "dtype": "int64",
            "shape": [],
            "pieces": [{"file": shard.name, "offsets": [], "sizes": []}],
        },
    }
    assert stored_shapes(folder)["weight"] == StoredShape(
        shape=torch.Size([3, 2]), dtype=torch.float32
    )


def test_the_shards_are_plain_safetensors(folder, tensors):
    (shard,) = folder.glob("*.safetensors")
    loaded = load_file(shard)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_only_files_that_hold_what_is_wanted_are_opened(folder, tensors):
    """A rank of many does not look at the files of all the others."""
    (folder / "shard-99999.safetensors").write_bytes(b"not readable")
    index = {"tensors": read_index(folder)}
    gone = {"file": "shard-99999.safetensors", "offsets": [0], "sizes": [4]}
    index["tensors"]["elsewhere"] = {"dtype": "float32", "shape": [4], "pieces": [gone]}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    wanted = {"weight": torch.zeros(3, 2)}
    dcp.load(wanted, storage_reader=ShardReader(folder, wanted), no_dist=True)
    assert torch.equal(wanted["weight"], tensors["weight"])


def test_a_tensor_is_put_together_of_pieces_in_several_files(folder):
    rows = torch.arange(20.0).view(5, 4)
    save_file({"table": rows[:2].clone()}, folder / "one.safetensors")
    save_file({"table": rows[2:].clone()}, folder / "two.safetensors")
    pieces = [
        {"file": "one.safetensors", "offsets": [0, 0], "sizes": [2, 4]},
        {"file": "two.safetensors", "offsets": [2, 0], "sizes": [3, 4]},
    ]
    index = {"tensors": {"table": {"dtype": "float32", "shape": [5, 4], "pieces": pieces}}}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    wanted = {"table": torch.zeros(5, 4)}
    dcp.load(wanted, storage_reader=ShardReader(folder, wanted), no_dist=True)
    assert torch.equal(wanted["table"], rows)


def test_an_index_is_parsed_once_for_many_tensors_and_anew_when_it_has_changed(folder, monkeypatch):
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(1) or loads(text))
    for _ in range(3):
        assert len(read_index(folder)) == len(stored_shapes(folder)) == 2
    assert len(parsed) == 1
    (folder / INDEX_FILE).write_text('{"tensors": {}}')
    assert read_index(folder) == {}


def test_a_file_or_folder_is_forced_onto_the_disk(tmp_path):
    (tmp_path / "a").write_text("x")
    for path in (tmp_path / "a", tmp_path):
        sync_to_disk(path)
    with pytest.raises(FileNotFoundError):
        sync_to_disk(tmp_path / "gone")
