import pickle

import pytest

from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import DataError


@pytest.fixture
def shards(tmp_path, make_row, png):
    for shard, count in enumerate((3, 0, 2)):
        rows = [
            make_row(f"{shard}-{n}", json_member={"caption": "a seven"}, png=png())
            for n in range(count)
        ]
        write_shard(tmp_path / f"train-{shard}.tar", rows)
    write_shard(tmp_path / "valid-0.tar", [make_row("v", txt=b"x")])
    return str(tmp_path / "train-*.tar")


def test_samples_of_all_shards_have_one_running_number(shards):
    found = ShardSet(shards=shards)
    assert [found.row(n).key for n in range(len(found))] == ["0-0", "0-1", "0-2", "2-0", "2-1"]
    assert found.sizes.tolist() == [3, 0, 2]
    assert [found.locate(n) for n in range(5)] == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert [found.first(shard) for shard in range(3)] == [0, 3, 3]
    assert found.path(2).endswith("train-0.tar")
    assert found.path(3).endswith("train-2.tar")
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            found.row(wrong)


def test_several_patterns_and_brace_lists(shards):
    listed = shards.replace("*", "{0,2}")
    assert len(ShardSet(shards=listed)) == 5
    assert len(ShardSet(shards=[listed, shards.replace("train-*", "valid-0")])) == 6
    with pytest.raises(DataError, match="no file matches"):
        ShardSet(shards=shards.replace("*", "{0..3}"))


def test_cached_rows_are_read_once(shards):
    cached, plain = ShardSet(shards=shards, cache_rows=True), ShardSet(shards=shards)
    assert cached.row(1) is cached.row(1)
    assert plain.row(1) is not plain.row(1)
    assert plain.row(1) == cached.row(1)
    assert cached.row(1).picture() is cached.row(1).picture()


def test_the_fingerprint_goes_with_the_content_not_the_place(shards, tmp_path, make_row):
    here = ShardSet(shards=shards)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in tmp_path.glob("train-*.tar"):
        (moved / path.name).write_bytes(path.read_bytes())
    assert ShardSet(shards=str(moved / "*.tar")).fingerprint() == here.fingerprint()
    write_shard(moved / "train-1.tar", [make_row("new", txt=b"x")])
    assert ShardSet(shards=str(moved / "*.tar")).fingerprint() != here.fingerprint()


def test_it_goes_to_another_process(shards):
    found = ShardSet(shards=shards)
    found.row(0)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.row(4).key == "2-1"


def test_a_shard_that_shrinks_is_noticed(shards, tmp_path):
    found = ShardSet(shards=shards)
    found.row(0)
    whole = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole[:600])
    with pytest.raises(DataError, match=r"train-0\.tar ends at byte 600"):
        found.row(0)
