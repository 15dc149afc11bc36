import gc
import pickle
import tarfile

import pytest

from mllm_npu.data.index import build_index
from mllm_npu.data.row import Row
from mllm_npu.data.shards import BLOCK, ShardReader, split_name, walk_members, write_shard
from mllm_npu.errors import DataError, SkipSample


@pytest.fixture
def rows(make_row, png):
    long_key = "folder/" + "x" * 150
    return [
        make_row("first", json_member={"caption": "one"}, png=png()),
        make_row(long_key, json_member={"n": 2}, _0__png=png(), _1__png=png(8, 8)),
        make_row("third", txt=b"three" * 400),
    ]


def read_all(path):
    index, reader = build_index(path), ShardReader(path=path)
    spans = zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True)
    return [reader.read(*span) for span in spans]


def test_rows_come_back_as_they_were_written(tmp_path, rows):
    path = tmp_path / "new" / "shard.tar"
    assert write_shard(path, rows) == 3
    back = read_all(path)
    assert [row.key for row in back] == [row.key for row in rows]
    assert [dict(row.members) for row in back] == [dict(row.members) for row in rows]


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_reads_every_tar_format(tmp_path, tar_format):
    path, name = tmp_path / "other.tar", "deep/" * 24 + "k" * 90
    source = tmp_path / "file"
    source.write_bytes(b"content")
    with tarfile.open(path, "w", format=tar_format) as archive:
        archive.add(tmp_path, "deep", recursive=False)
        archive.add(source, "plain.txt")
        archive.add(source, f"{name}.txt")
    assert [row.key for row in read_all(path)] == ["plain", name]
    assert read_all(path)[1].members == {"txt": b"content"}


# The library leaves the file it read open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_webdataset_library_reads_our_shards(tmp_path, rows):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [row.key for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        kept = {name: value for name, value in sample.items() if not name.startswith("__")}
        assert kept == dict(row.members)


def test_we_read_shards_of_the_webdataset_library(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "theirs.tar"
    with webdataset.TarWriter(str(path)) as sink:
        sink.write({"__key__": "a", "txt": "hello", "cls": 3})
        sink.write({"__key__": "b", "json": {"text": "world"}})
    first, second = read_all(path)
    assert (first.key, first.text()) == ("a", "hello")
    assert second.json() == {"text": "world"}


def test_the_same_rows_give_the_same_bytes(tmp_path, rows):
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, rows)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_nothing_half_written_stays(tmp_path, rows, make_row):
    path = tmp_path / "shard.tar"
    write_shard(path, rows[:1])
    before = path.read_bytes()
    with pytest.raises(DataError, match="holds a dot"):
        write_shard(path, [*rows, make_row("bad.key", txt=b"x")])
    with pytest.raises(DataError, match="no members"):
        write_shard(path, [make_row("empty")])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_flipped_byte_skips_the_sample_only(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    index = build_index(path)
    with path.open("r+b") as file:
        file.seek(int(index.offset[1]) + 3)
        file.write(b"\x07")
    reader = ShardReader(path=path)
    spans = list(zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True))
    assert reader.read(*spans[0]).key == "first"
    with pytest.raises(SkipSample, match="tar broken"):
        reader.read(*spans[1])
    assert reader.read(*spans[2]).key == "third"


def test_a_shorter_or_vanished_shard_stops_with_its_name(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    with pytest.raises(DataError, match=r"shard\.tar ends at byte"):
        ShardReader(path=path).read(0, 10**6)
    with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
        ShardReader(path=tmp_path / "gone.tar").read(0, 512)


def test_a_reader_can_be_sent_to_another_process(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    reader = ShardReader(path=path)
    size = int(build_index(path).num_bytes[0])
    first = reader.read(0, size)
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert copy.read(0, size) == first == reader.read(0, size)


def test_a_tar_that_ends_inside_a_file_is_told(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    data = path.read_bytes()[:700]
    with pytest.raises(DataError, match="ends inside the file at byte"):
        list(walk_members(lambda at, count: data[at : at + count], 0, len(data)))


def test_a_broken_tar_is_walked_on_where_its_breaks_are_taken(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    data = bytearray(path.read_bytes())

    def walk(content, breaks=None):
        return list(
            walk_members(lambda at, n: content[at : at + n], 0, len(content), breaks=breaks)
        )

    whole = walk(data)
    assert [member.name for member in whole] == [
        f"{row.key}.{name}" for row in rows for name in row.members
    ]
    assert walk(data, breaks := []) == whole
    assert breaks == []
    for number, member in enumerate(whole):
        header = member.data - BLOCK
        broken = bytearray(data)
        broken[header + 30] ^= 0xFF
        with pytest.raises(DataError, match=f"header at byte {header} is broken"):
            walk(broken)
        assert walk(broken, breaks := []) == whole[:number] + whole[number + 1 :]
        assert [one.offset for one in breaks] == [header]


def test_members_say_where_they_lie(tmp_path, rows):
    path = tmp_path / "shard.tar"
    write_shard(path, rows)
    data = path.read_bytes()
    before = 0
    contents = [content for row in rows for content in row.members.values()]
    members = walk_members(lambda at, n: data[at : at + n], 0, len(data))
    for member, content in zip(members, contents, strict=True):
        assert member.start == before
        assert data[member.data : member.data + member.size] == content
        assert member.end % BLOCK == 0
        before = member.end


def test_only_regular_files_are_members(tmp_path):
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("link.txt", tarfile.SYMTYPE),
            ("pipe.txt", tarfile.FIFOTYPE),
            ("file.txt", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            archive.addfile(entry)
    data = path.read_bytes()
    members = list(walk_members(lambda at, n: data[at : at + n], 0, len(data)))
    assert [member.name for member in members] == ["file.txt"]


def test_a_span_without_a_sample_is_skipped(tmp_path):
    path = tmp_path / "empty.tar"
    write_shard(path, [])
    with pytest.raises(SkipSample, match="no sample where the index says"):
        ShardReader(path=path).read(0, 1024)


def test_names_are_split_at_the_first_dot():
    assert split_name("a/b.c/key.0.png") == ("a/b.c/key", "0.png")
    assert split_name("key.JSON") == ("key", "json")
    assert split_name("no_extension") is None
    assert split_name("folder/.hidden") is None


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_shard(tmp_path / "file" / "a.tar", [Row(key="a", members={"txt": b"a"})])
