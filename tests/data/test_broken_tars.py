"""A tar that is broken somewhere gives all it still has, and says where samples may be missing."""

import io
import tarfile

import pytest

from mllm_npu.data.index import build_index, find_head, index_shards, load_index
from mllm_npu.data.shards import BLOCK, ShardReader, write_shard
from mllm_npu.errors import DataError, SkipSample

SAMPLE = 5 * BLOCK
"""Each sample below: header and block of its json, header and two blocks of its text."""
TEXT = 2 * BLOCK
"""Where the header of its text lies in it."""


@pytest.fixture
def shard(tmp_path, make_row):
    path = tmp_path / "shard.tar"
    rows = [make_row(f"k{n}", json=b'{"n": 1}', txt=bytes([65 + n]) * 2 * BLOCK) for n in range(5)]
    write_shard(path, rows)
    assert build_index(path).offset.tolist() == [n * SAMPLE for n in range(5)]
    return path


@pytest.fixture
def damage(shard):
    """Change bytes of the shard, then index it."""

    def change(*changes, cut=None):
        data = bytearray(shard.read_bytes())
        for offset, content in changes:
            data[offset : offset + len(content)] = content
        shard.write_bytes(bytes(data[:cut]))
        return build_index(shard)

    return change


def read_rows(shard):
    """Key and members' names of every sample; its key is None where it cannot be read."""
    index, reader, found = load_index(shard), ShardReader(path=shard), []
    for span in zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True):
        try:
            row = reader.read(*span)
            found.append((row.key, " ".join(row.members)))
        except SkipSample as skip:
            found.append((None, str(skip)))
    return found


def whole(*numbers):
    return [(f"k{n}", "json txt") for n in numbers]


@pytest.mark.parametrize(
    ("cut", "offset", "reason", "found"),
    [
        # Within the content of the text of the fourth.
        (
            3 * SAMPLE + TEXT + 700,
            3 * SAMPLE + TEXT,
            "ends inside the file",
            [*whole(0, 1, 2), ("k3", "json")],
        ),
        # Within its header.
        (
            3 * SAMPLE + TEXT + 100,
            3 * SAMPLE + TEXT,
            "ends inside a header",
            [*whole(0, 1, 2), ("k3", "json")],
        ),
        (3 * SAMPLE + 100, 3 * SAMPLE, "ends inside a header", whole(0, 1, 2)),
        # Behind a sample, behind a member, and within the end mark.
        (3 * SAMPLE, 3 * SAMPLE, "ends without its end mark", whole(0, 1, 2)),
        (
            3 * SAMPLE + TEXT,
            3 * SAMPLE + TEXT,
            "ends without its end mark",
            [*whole(0, 1, 2), ("k3", "json")],
        ),
        # Padding of the content is not the end mark.
        (3 * SAMPLE + TEXT - 400, 3 * SAMPLE, "ends inside the file", whole(0, 1, 2)),
    ],
)
def test_a_cut_tar_gives_what_lies_before(shard, damage, cut, offset, reason, found):
    index = damage(cut=cut)
    [broken] = index.breaks
    assert broken.offset == offset
    assert reason in broken.reason
    assert read_rows(shard) == found
    assert len(load_index(shard)) == len(found)
    assert load_index(shard).breaks == find_head(shard).breaks == index.breaks


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_the_end_mark_may_be_short(shard, damage, num_blocks):
    index = damage(cut=5 * SAMPLE + num_blocks * BLOCK)
    assert index.breaks == ()
    assert read_rows(shard) == whole(0, 1, 2, 3, 4)


@pytest.mark.parametrize("at", [0, 3, 130, 150, 300])
def test_a_flipped_byte_in_a_first_header_costs_that_sample_its_member(shard, damage, at):
    index = damage((2 * SAMPLE + at, b"\xa7"))
    [broken] = index.breaks
    assert (broken.offset, "is broken" in broken.reason) == (2 * SAMPLE, True)
    assert read_rows(shard) == [*whole(0, 1), ("k2", "txt"), *whole(3, 4)]


def test_a_flipped_byte_in_a_later_header_costs_that_member(shard, damage):
    index = damage((2 * SAMPLE + TEXT + 150, b"\xa7"))
    assert [broken.offset for broken in index.breaks] == [2 * SAMPLE + TEXT]
    assert read_rows(shard) == [*whole(0, 1), ("k2", "json"), *whole(3, 4)]


def test_several_breaks_are_all_told(shard, damage):
    index = damage(
        (150, b"\xa7"), (SAMPLE + TEXT + 10, b"\xa7\xa7"), cut=4 * SAMPLE + TEXT + BLOCK + 1
    )
    assert [broken.offset for broken in index.breaks] == [0, SAMPLE + TEXT, 4 * SAMPLE + TEXT]
    assert read_rows(shard) == [
        ("k0", "txt"),
        ("k1", "json"),
        *whole(2, 3),
        ("k4", "json"),
    ]


def test_a_size_that_leads_beyond_the_end_does_not_swallow_what_follows(shard, damage):
    header = bytearray(shard.read_bytes()[SAMPLE : SAMPLE + BLOCK])
    header[124:136] = b"%011o\0" % 10**7
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    index = damage((SAMPLE, bytes(header)))
    [broken] = index.breaks
    assert broken.offset == SAMPLE
    assert "ends inside the file" in broken.reason
    assert read_rows(shard) == [*whole(0), ("k1", "txt"), *whole(2, 3, 4)]


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 8])
def test_a_hole_in_the_middle_is_told_and_passed(shard, damage, num_blocks):
    """Zeros where a file system or a download left a page out."""
    index = damage((SAMPLE, bytes(num_blocks * BLOCK)))
    assert index.breaks
    assert index.breaks[0].offset == SAMPLE
    behind = {1: whole(2, 3, 4), 2: whole(2, 3, 4), 3: whole(2, 3, 4), 8: whole(3, 4)}
    assert [row for row in read_rows(shard) if row[1] == "json txt"] == [
        *whole(0),
        *behind[num_blocks],
    ]


@pytest.mark.parametrize("header", [b"\xa7", bytes(BLOCK)], ids=["flipped", "empty"])
def test_a_break_within_one_sample_skips_that_alone(tmp_path, make_row, png, header):
    path = tmp_path / "a.tar"
    rows = [make_row(f"k{n}", json=b'{"n": 1}', png=png(), txt=b"x" * BLOCK) for n in range(3)]
    write_shard(path, rows)
    begin = int(build_index(path).offset[1])
    data = bytearray(path.read_bytes())
    place = begin + 2 * BLOCK
    data[place : place + len(header)] = header
    path.write_bytes(bytes(data))
    assert len(build_index(path)) == 3
    assert read_rows(path) == [
        ("k0", "json png txt"),
        (None, "tar broken inside the sample"),
        ("k2", "json png txt"),
    ]


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("broken_header", [0, 2])
def test_a_break_at_a_long_name_loses_that_name_alone(tmp_path, tar_format, broken_header):
    """The header of the name itself, or the one of the member behind it."""
    path = tmp_path / "long.tar"
    names = [f"{'deep/' * 30}{letter * 120}" for letter in "abc"]
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name in names:
            entry = tarfile.TarInfo(f"{name}.txt")
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
    index = build_index(path)
    assert [row[0] for row in read_rows(path)] == names
    data = bytearray(path.read_bytes())
    data[int(index.offset[1]) + broken_header * BLOCK + 150] ^= 1
    path.write_bytes(bytes(data))
    index = build_index(path)
    assert len(index.breaks) == 1
    keys = [row[0] for row in read_rows(path)]
    assert (keys[0], keys[-1]) == (names[0], names[2])
    assert names[1] not in keys
    # What remains of the second must not be taken for a part of its neighbours.
    assert [row[1] for row in read_rows(path)] == ["txt"] * len(keys)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_name_whose_file_is_broken_names_no_other_file(tmp_path, tar_format):
    path, key = tmp_path / "long.tar", "x" * 150
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name in (f"{key}.json", f"{key}.txt", "short.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
    # Each long name is a header and a block, then come header and content of its file.
    place = 4 * BLOCK + 2 * BLOCK
    data = bytearray(path.read_bytes())
    data[place + 150] ^= 1
    path.write_bytes(bytes(data))
    assert [one.offset for one in build_index(path).breaks] == [place]
    assert read_rows(path) == [(key, "json"), ("short", "txt")]


@pytest.mark.parametrize(
    "content",
    [
        b"no tar at all",
        b"no tar at all, and longer than a block of it " * 100,
        b"PK\x03\x04" + bytes(2000),
        b"",
        b"x",
    ],
)
def test_what_is_no_tar_is_refused(tmp_path, content):
    path = tmp_path / "odd.tar"
    path.write_bytes(content)
    for find in (build_index, find_head, load_index, lambda name: index_shards(str(name))):
        with pytest.raises(DataError) as refused:
            find(path)
        assert "odd.tar" in str(refused.value)
    with pytest.raises(DataError, match=r"odd\.tar is no tar: .*Make it again\.$") as refused:
        build_index(path)
    assert str(refused.value).count("Make it again") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_breaks_are_reported_with_their_shard(shard, damage):
    damage(cut=3 * SAMPLE)
    report = index_shards(str(shard))
    assert (report.num_samples, report.num_built) == (3, 0)
    [(path, broken)] = report.breaks
    assert (path, broken.offset) == (str(shard), 3 * SAMPLE)
