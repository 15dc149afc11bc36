import os

import pytest

from mllm_npu.data.index import (
    build_index,
    find_index,
    index_path,
    index_shards,
    load_index,
    read_rows,
)
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import DataError


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


def test_records_spans_picture_sizes_and_characters(shard):
    index = build_index(shard)
    assert len(index) == 3
    assert index.offset[0] == 0
    assert (index.offset[1:] == (index.offset + index.num_bytes)[:-1]).all()
    assert index.num_pictures.tolist() == [1, 2, 0]
    assert index.width.tolist() == [20, 16, 0]
    assert index.height.tolist() == [10, 16, 0]
    assert index.num_text_chars.tolist() == [4, 3, 6]


def test_loads_what_was_built(shard):
    built, loaded = build_index(shard), load_index(shard)
    assert loaded.path == str(shard)
    for name in ("offset", "num_bytes", "num_pictures", "width", "height", "num_text_chars"):
        assert (getattr(built, name) == getattr(loaded, name)).all()
        assert getattr(built, name).dtype == getattr(loaded, name).dtype


def test_a_missing_or_stale_index_is_an_error_to_load_and_built_to_find(shard, make_row):
    with pytest.raises(DataError, match="no readable index"):
        load_index(shard)
    assert len(find_index(shard)) == 3
    write_shard(shard, [make_row("only", txt=b"x")])
    with pytest.raises(DataError, match="has changed since"):
        load_index(shard)
    assert len(find_index(shard)) == 1
    assert len(load_index(shard)) == 1


def test_a_touched_shard_is_indexed_again(shard):
    build_index(shard)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since"):
        load_index(shard)


def test_a_broken_index_file_is_built_again(shard):
    build_index(shard)
    index_path(shard).write_bytes(b"rubbish")
    with pytest.raises(DataError, match="no readable index"):
        load_index(shard)
    assert len(find_index(shard)) == 3


def test_missing_and_broken_shards_are_named(tmp_path, shard):
    with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
        find_index(tmp_path / "gone.tar")


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    [(1024, "ends without its end mark"), (2000, "ends without its end mark"), (2048, "end mark")],
)
def test_a_truncated_shard_is_refused_wherever_it_was_cut(shard, num_bytes, message):
    shard.write_bytes(shard.read_bytes()[:num_bytes])
    with pytest.raises(DataError, match=rf"shard\.tar: The tar .*{message}"):
        build_index(shard)


def test_a_shard_with_a_hole_is_refused(shard):
    data = bytearray(shard.read_bytes())
    data[1024 + 150] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"shard\.tar: The tar header at byte 1024 is broken"):
        build_index(shard)


def test_no_temporary_file_stays_and_rows_read_in_order(shard):
    build_index(shard)
    assert {path.name for path in shard.parent.iterdir()} == {
        "shard.tar",
        "shard.tar.index.safetensors",
    }
    assert [row.key for row in read_rows(shard)] == ["a", "b", "c"]


def test_members_without_a_key_are_passed_over(tmp_path, make_row):
    import tarfile

    path = tmp_path / "odd.tar"
    note = tmp_path / "README"
    note.write_text("hello")
    with tarfile.open(path, "w") as archive:
        archive.add(note, "README")
        archive.add(note, "a.txt")
    index = build_index(path)
    assert len(index) == 1
    assert index.offset.tolist() != [0]


def test_every_matching_shard_is_indexed_and_counted(tmp_path):
    for number in range(3):
        rows = [Row(key=f"{number}-{n}", members={"txt": b"text"}) for n in range(number + 1)]
        write_shard(tmp_path / f"{number}.tar", rows)
    told = []
    count = index_shards(str(tmp_path / "*.tar"), progress=lambda *numbers: told.append(numbers))
    assert count == 6
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(index_path(tmp_path / f"{number}.tar").is_file() for number in range(3))
    with pytest.raises(DataError, match="No shard matches"):
        index_shards(str(tmp_path / "nothing*.tar"))


def test_a_folder_is_no_shard(tmp_path):
    with pytest.raises(DataError, match="is no file"):
        find_index(tmp_path)
