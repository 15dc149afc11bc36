"""An index tells where samples lie and how large they are, and notices when its shard changes."""

import json
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors import safe_open

from mllm_npu.data import index as index_module
from mllm_npu.data.index import (
    INDEX_VERSION,
    SUFFIX,
    build_index,
    find_head,
    find_index,
    index_shards,
    load_index,
    read_rows,
)
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import DataError

TENSORS = ("offset", "num_bytes", "num_pictures", "width", "height", "num_text_chars")


@pytest.fixture
def shard(tmp_path, make_row, png):
    path = tmp_path / "shard.tar"
    rows = [
        make_row("a", json_member={"caption": "four"}, png=png(20, 10)),
        make_row("b", json_member={"parts": [{"text": "abc"}]}, _0__png=png(), _1__png=b"broken"),
        make_row("c", txt="größer".encode()),
    ]
    write_shard(path, rows)
    return path


@pytest.fixture
def make_shards(tmp_path):
    """Shards 0.tar, 1.tar, ... of 1, 2, ... samples."""

    def make(count):
        for number in range(count):
            rows = [Row(key=f"{number}-{n}", members={"txt": b"text"}) for n in range(number + 1)]
            write_shard(tmp_path / f"{number}.tar", rows)
        return str(tmp_path / "*.tar")

    return make


@pytest.fixture
def built(monkeypatch):
    """Names of the shards that were walked."""
    names, build = [], index_module.build_index

    def note(shard):
        names.append(Path(str(shard)).name)
        return build(shard)

    monkeypatch.setattr(index_module, "build_index", note)
    return names


def index_path(shard):
    return Path(f"{shard}{SUFFIX}")


def assert_same(first, second):
    for name in TENSORS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert getattr(first, name).dtype == getattr(second, name).dtype, name
    assert first.breaks == second.breaks


def test_records_spans_picture_sizes_and_characters(shard):
    index = build_index(shard)
    assert len(index) == 3
    assert index.offset[0] == 0
    assert (index.offset[1:] == (index.offset + index.num_bytes)[:-1]).all()
    assert index.num_pictures.tolist() == [1, 2, 0]
    assert index.width.tolist() == [20, 16, 0]
    assert index.height.tolist() == [10, 16, 0]
    assert index.num_text_chars.tolist() == [4, 3, 6]
    assert index.breaks == ()


def test_characters_are_those_of_all_texts_of_a_row(tmp_path, make_row):
    deep = "[" * 5000 + "]" * 5000
    rows = [
        make_row(
            "a", json_member={"x": "ab", "y": ["cd", {"z": "e"}, 7, None, True]}, txt=b"12345"
        ),
        make_row("b", json=b"{broken", txt=b"\xff\xfeok"),
        make_row("c", json=deep.encode()),
    ]
    write_shard(tmp_path / "a.tar", rows)
    assert build_index(tmp_path / "a.tar").num_text_chars.tolist() == [10, 4, 0]


def test_loads_what_was_built(shard):
    built, loaded = build_index(shard), load_index(shard)
    assert loaded.path == str(shard)
    assert_same(built, loaded)
    with safe_open(index_path(shard), framework="np") as file:
        assert file.metadata()["version"] == INDEX_VERSION == "2"


def test_the_head_tells_the_index_without_its_tensors(shard, built):
    head = find_head(shard)
    assert (head.path, head.num_samples) == (str(shard), 3)
    assert (head.num_bytes, head.breaks) == (shard.stat().st_size, ())
    assert find_head(str(shard)) == head
    assert built == ["shard.tar"]


def test_a_missing_or_stale_index_is_an_error_to_load_and_built_to_find(shard, make_row):
    with pytest.raises(DataError, match=r"has no index. Run `mllm-npu data index`"):
        load_index(shard)
    assert len(find_index(shard)) == 3
    write_shard(shard, [make_row("only", txt=b"x")])
    with pytest.raises(DataError, match="has changed since"):
        load_index(shard)
    assert find_head(shard).num_samples == 1
    assert len(find_index(shard)) == len(load_index(shard)) == 1


def test_a_touched_shard_is_indexed_again(shard, built):
    find_head(shard)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since"):
        load_index(shard)
    assert find_head(shard).num_samples == 3
    assert len(built) == 2


def test_an_index_of_another_release_is_built_again(shard, built, monkeypatch):
    find_head(shard)
    monkeypatch.setattr(index_module, "INDEX_VERSION", "3")
    with pytest.raises(DataError, match="has changed since"):
        load_index(shard)
    assert find_head(shard).num_samples == 3
    assert len(built) == 2


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x02" + bytes(7) + b"{}"])
def test_a_broken_index_file_is_built_again(shard, content):
    whole = build_index(shard)
    for find in (find_index, find_head):
        index_path(shard).write_bytes(content)
        with pytest.raises(DataError):
            load_index(shard)
        find(shard)
        assert_same(load_index(shard), whole)


def test_missing_shards_and_folders_are_named(tmp_path):
    for find in (find_index, find_head, build_index, load_index):
        with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
            find(tmp_path / "gone.tar")
        with pytest.raises(DataError, match="is no file"):
            find(tmp_path)


def test_no_temporary_file_stays_and_rows_read_in_order(shard):
    build_index(shard)
    assert {path.name for path in shard.parent.iterdir()} == {
        "shard.tar",
        "shard.tar.index.safetensors",
    }
    assert [row.key for row in read_rows(shard)] == ["a", "b", "c"]


def test_members_without_a_key_are_passed_over(tmp_path):
    path = tmp_path / "odd.tar"
    note = tmp_path / "README"
    note.write_text("hello")
    with tarfile.open(path, "w") as archive:
        archive.add(note, "README")
        archive.add(note, "a.txt")
    index = build_index(path)
    assert len(index) == 1
    assert index.offset.tolist() != [0]


def test_a_shard_without_samples_has_an_empty_index(tmp_path):
    write_shard(tmp_path / "empty.tar", [])
    for index in (build_index(tmp_path / "empty.tar"), load_index(tmp_path / "empty.tar")):
        assert (len(index), index.breaks) == (0, ())
        assert index.width.dtype == torch.int32
    assert find_head(tmp_path / "empty.tar").num_samples == 0


def test_every_matching_shard_is_indexed_and_counted(make_shards, tmp_path):
    told = []
    report = index_shards(make_shards(3), progress=lambda *numbers: told.append(numbers))
    assert (report.num_samples, report.num_built, report.breaks) == (6, 3, ())
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(index_path(tmp_path / f"{number}.tar").is_file() for number in range(3))
    with pytest.raises(DataError, match="no file matches"):
        index_shards(str(tmp_path / "nothing*.tar"))


def test_only_what_changed_is_indexed_again(make_shards, tmp_path, built):
    pattern = make_shards(3)
    assert index_shards(pattern).num_built == 3
    built.clear()
    told = []
    report = index_shards(pattern, progress=lambda *numbers: told.append(numbers))
    assert (report.num_samples, report.num_built, built, told) == (6, 0, [], [])
    write_shard(tmp_path / "9.tar", [Row(key="new", members={"txt": b"x"})])
    os.utime(tmp_path / "0.tar", ns=(5, 5))
    write_shard(tmp_path / "1.tar", [Row(key="other", members={"txt": b"x"})])
    report = index_shards(pattern, progress=lambda *numbers: told.append(numbers))
    assert (report.num_samples, report.num_built) == (1 + 1 + 3 + 1, 3)
    assert built == ["0.tar", "1.tar", "9.tar"]
    assert told == [(2, 4), (3, 4), (4, 4)]


def test_in_processes_as_in_one(make_shards, tmp_path):
    pattern = make_shards(4)
    serial = index_shards(pattern)
    indices = [load_index(tmp_path / f"{number}.tar") for number in range(4)]
    for path in tmp_path.glob(f"*{SUFFIX}"):
        path.unlink()
    told = []
    report = index_shards(pattern, lambda *numbers: told.append(numbers), num_workers=2)
    assert report == serial
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for number, expected in enumerate(indices):
        assert_same(load_index(tmp_path / f"{number}.tar"), expected)


def test_a_shard_that_cannot_be_indexed_is_named_by_any_process(make_shards, tmp_path):
    pattern = make_shards(2)
    (tmp_path / "2.tar").write_bytes(b"no tar at all" * 100)
    for num_workers in (0, 2):
        with pytest.raises(DataError, match=r"2\.tar is no tar"):
            index_shards(pattern, num_workers=num_workers)


def test_the_cache_holds_the_index_where_the_folder_cannot(shard, shard_cache):
    index_path(shard).mkdir()
    assert find_head(shard).num_samples == 3
    assert [path.name for path in shard_cache.rglob("*.safetensors")] == [f"shard.tar{SUFFIX}"]
    assert_same(load_index(shard), build_index(shard))
    assert index_shards(str(shard)).num_built == 0


@pytest.mark.parametrize("find", [find_head, find_index])
def test_a_stale_index_in_a_folder_that_cannot_be_written_does_no_harm(shard, monkeypatch, find):
    """Data on a mount that is read-only, with the index of an older release beside it."""
    build_index(shard)
    os.utime(shard, ns=(1, 1))
    write, folder = Path.write_bytes, shard.parent

    def refuse(path, data):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    find(shard)
    assert find_head(shard).num_samples == len(load_index(shard)) == 3
    assert index_shards(str(shard)).num_built == 0


def test_where_no_index_can_be_written_it_is_said(shard, shard_cache):
    index_path(shard).mkdir()
    shard_cache.write_text("a file where a folder should be")
    with pytest.raises(DataError, match="Make one of their folders writable"):
        find_head(shard)


def test_shards_behind_urls_are_indexed_as_local_ones(shard, shard_cache, make_row):
    files = fsspec.filesystem("memory")
    local = build_index(shard)
    files.pipe_file("/index-test/0.tar", shard.read_bytes())
    try:
        url = "memory://index-test/0.tar"
        assert_same(find_index(url), local)
        assert list(read_rows(url)) == list(read_rows(shard))
        [kept] = shard_cache.rglob(f"*{SUFFIX}")
        assert kept.name == f"0.tar{SUFFIX}"
        assert index_shards("memory://index-test/{0..0}.tar").num_built == 0
        write_shard(shard, [make_row("only", txt=b"x")])
        files.pipe_file("/index-test/0.tar", shard.read_bytes())
        assert index_shards("memory://index-test/{0..0}.tar").num_built == 1
        assert find_head(url).num_samples == 1
    finally:
        files.rm("/index-test", recursive=True)


def test_what_the_file_says_is_plain(shard):
    build_index(shard)
    with safe_open(index_path(shard), framework="np") as file:
        told = file.metadata()
        assert file.get_tensor("offset").dtype == np.int64
    assert json.loads(told["breaks"]) == []
    assert told["samples"] == "3"
    assert int(told["size"]) == shard.stat().st_size
