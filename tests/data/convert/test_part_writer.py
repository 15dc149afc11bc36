"""A part becomes shards that appear when it is done, with keys of their own."""

import json

import pytest

from mllm_npu.data.convert.part_writer import (
    WORK_FOLDER,
    check_written,
    forbid_foreign_shards,
    refused_path,
    shard_name,
    write_part,
)
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat
from mllm_npu.data.index import load_index
from mllm_npu.data.row import Row
from mllm_npu.errors import DataError

PART = Part(path="source.tar")


class Given(SourceFormat):
    """Gives the entries it was made of."""

    name, summary = "given", ""

    def __init__(self, entries):
        self.entries = entries

    def recognises(self, listing):
        return True

    def split(self, listing, options):
        return [PART]

    def read(self, part, options):
        yield from self.entries


def rows(*keys):
    return [Row(key=key, members={"txt": b"x" * 10}) for key in keys]


def write(out, entries, rows_per_shard=2, **changes):
    return write_part(
        source_format=Given(entries),
        part=PART,
        number=3,
        options=Options(rows_per_shard=rows_per_shard),
        out=out,
        **changes,
    )


def test_rows_are_spread_over_indexed_shards(tmp_path, output):
    report = write(tmp_path, rows("a", "b", "c", "d", "e"))
    assert report.rows == 5
    assert report.kinds == {"pure_text": 5}
    names = [shard_name(3, shard) for shard in range(3)]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == names
    assert [len(load_index(tmp_path / name)) for name in names] == [2, 2, 1]
    assert report.shard_bytes == tuple((tmp_path / name).stat().st_size for name in names)
    assert list(output(tmp_path)) == ["00003/a", "00003/b", "00003/c", "00003/d", "00003/e"]
    assert not (tmp_path / WORK_FOLDER / "00003").exists()


def test_no_shard_is_empty(tmp_path):
    assert write(tmp_path, rows("a", "b")).shard_bytes == (10240,)
    assert write(tmp_path / "none", []).shard_bytes == ()


def test_keys_stay_in_the_folder_of_the_part_and_differ(tmp_path, output):
    write(tmp_path, rows("a", "../a", "/a", "x/../a", "a"))
    assert list(output(tmp_path)) == [
        "00003/a",
        "00003/a~2",
        "00003/a~3",
        "00003/x/a",
        "00003/a~4",
    ]


def test_refusals_are_written_and_counted(tmp_path):
    refusals = [
        Refusal(reason="text empty", at="line 1"),
        Refusal(reason="tar broken", at="byte 5", detail="why", broken=True),
    ]
    report = write(tmp_path, [refusals[0], *rows("a"), *refusals])
    assert report.refused == {"text empty": 2, "tar broken": 1}
    assert report.broken == "source.tar: byte 5"
    lines = refused_path(tmp_path, 3).read_text().splitlines()
    assert [json.loads(line) for line in lines][1:] == [
        {"source": "source.tar", "reason": "text empty", "at": "line 1", "detail": ""},
        {"source": "source.tar", "reason": "tar broken", "at": "byte 5", "detail": "why"},
    ]


def test_progress_is_told_after_every_entry_and_may_stop(tmp_path):
    seen = []

    def moved(entries, num_bytes):
        seen.append((entries, num_bytes))
        if entries == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, [*rows("a"), Refusal(reason="x", at=""), *rows("c", "d")], moved=moved)
    assert seen == [(1, 10), (2, 10), (3, 20)]
    assert list(tmp_path.glob("*.tar")) == []


def test_a_part_that_stops_half_way_shows_nothing_and_can_be_done_again(tmp_path, output):
    def failing():
        yield from rows("a", "b", "c")
        raise DataError("the source is gone")

    with pytest.raises(DataError, match="gone"):
        write(tmp_path, failing())
    assert list(tmp_path.glob("*.tar")) == []
    write(tmp_path, rows("a", "b", "c"))
    assert len(output(tmp_path)) == 3


def test_written_shards_are_checked_by_size(tmp_path):
    report = write(tmp_path, rows("a", "b", "c"))
    assert check_written(tmp_path, report)
    (tmp_path / shard_name(3, 1)).write_bytes(b"")
    assert not check_written(tmp_path, report)
    (tmp_path / shard_name(3, 1)).unlink()
    assert not check_written(tmp_path, report)


def test_shards_of_others_are_not_mixed_with(tmp_path):
    forbid_foreign_shards(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(DataError, match="holds shards already"):
        forbid_foreign_shards(tmp_path)
