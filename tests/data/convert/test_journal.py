"""The journal knows what is done, refuses another conversion, and survives a cut."""

import json
import os
from pathlib import Path

import pytest

from mllm_npu.data.convert.journal import FILE_NAME, Journal, describe_plan
from mllm_npu.data.convert.part_writer import PartReport, refused_path, shard_name
from mllm_npu.data.convert.source_format import Options, Part
from mllm_npu.errors import DataError


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 100)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def plan(source, **options):
    return describe_plan(source, "webdataset", Options(**options), [Part(path=str(source))])


def report(out, number, rows=1):
    """A report whose shard and refusals are there."""
    (out / shard_name(number, 0)).write_bytes(b"s" * 10)
    refused_path(out, number).parent.mkdir(exist_ok=True)
    refused_path(out, number).write_text("")
    return PartReport(number=number, rows=rows, kinds={}, shard_bytes=(10,), refused={"a": 1})


def test_what_was_noted_is_known_again(source, out):
    with Journal(out=out, plan=plan(source)) as journal:
        assert journal.done == {}
        second, first = report(out, 1), report(out, 0)
        journal.note(second)
        journal.note(first)
    with Journal(out=out, plan=plan(source)) as journal:
        assert journal.done == {0: first, 1: second}


def test_the_journal_is_in_order_whatever_came_first(source, out):
    with Journal(out=out, plan=plan(source)) as journal:
        for number in (2, 0, 1):
            journal.note(report(out, number))
    lines = (out / FILE_NAME).read_text().splitlines()
    assert [json.loads(line).get("number") for line in lines] == [None, 0, 1, 2]


def test_a_line_that_was_cut_off_is_forgotten(source, out):
    with Journal(out=out, plan=plan(source)) as journal:
        journal.note(report(out, 0))
        journal.note(report(out, 1))
    text = (out / FILE_NAME).read_text()
    (out / FILE_NAME).write_text(text[:-5])
    with Journal(out=out, plan=plan(source)) as journal:
        assert set(journal.done) == {0}


def test_a_part_whose_shards_or_refusals_are_gone_is_not_done(source, out):
    with Journal(out=out, plan=plan(source)) as journal:
        for number in range(3):
            journal.note(report(out, number))
    (out / shard_name(0, 0)).unlink()
    refused_path(out, 2).unlink()
    with Journal(out=out, plan=plan(source)) as journal:
        assert set(journal.done) == {1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_per_shard": 5}, r"rows_per_shard \(1000 then, 5 now\)"),
        ({"images": "/x"}, r"images \('' then, '/x' now\)"),
        ({"class_names": ("a",)}, r"class_names \(\[\] then, \['a'\] now\)"),
    ],
)
def test_other_options_are_refused(source, out, change, said):
    with Journal(out=out, plan=plan(source)):
        pass
    with pytest.raises(DataError, match=said) as error:
        Journal(out=out, plan=plan(source, **change))
    assert f"delete {out} or give another --out" in str(error.value)


def test_a_changed_source_is_refused(source, out):
    with Journal(out=out, plan=plan(source)):
        pass
    os.utime(source, ns=(1, 1))
    with pytest.raises(DataError, match="changed: files of the source"):
        Journal(out=out, plan=plan(source))
    other = {**plan(source), "format": "folder", "num_parts": 2}
    with pytest.raises(DataError, match=r"format \('webdataset' then, 'folder' now\)"):
        Journal(out=out, plan=other)


def test_the_plan_knows_every_file_of_a_folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    part = Part(path=str(tmp_path), names=("a.jpg", "b.jpg"))
    first = describe_plan(tmp_path, "folder", Options(), [part])
    assert describe_plan(tmp_path, "folder", Options(), [part]) == first
    (tmp_path / "b.jpg").write_bytes(b"xx")
    assert describe_plan(tmp_path, "folder", Options(), [part]) != first


def test_one_process_at_a_time(source, out):
    with (
        Journal(out=out, plan=plan(source)),
        pytest.raises(DataError, match="Another conversion is writing"),
    ):
        Journal(out=out, plan=plan(source))
    with Journal(out=out, plan=plan(source)):
        pass


def test_a_refusal_gives_the_folder_back(source, out):
    out.mkdir()
    (out / "foreign.tar").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match="holds shards already"):
            Journal(out=out, plan=plan(source))


def test_a_broken_journal_and_a_file_in_the_way_are_explained(source, out):
    out.mkdir()
    (out / FILE_NAME).write_text("garbage\n")
    with pytest.raises(DataError, match="is broken"):
        Journal(out=out, plan=plan(source))
    with pytest.raises(DataError, match="--out"):
        Journal(out=Path(source), plan=plan(source))
