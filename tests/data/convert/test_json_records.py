"""Files of objects are split anywhere and give the same records with their places."""

import json

import pytest

from mllm_npu.data.convert.json_records import first_record, read_records, split_records
from mllm_npu.data.convert.source_format import Refusal
from mllm_npu.errors import DataError

RECORDS = [{"n": number, "text": "字" * number} for number in range(7)]


def read_all(path, rows_per_part):
    return [entry for part in split_records(path, rows_per_part) for entry in read_records(part)]


@pytest.mark.parametrize("rows_per_part", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_every_way_of_splitting_gives_the_same(tmp_path, make_lines, name, rows_per_part):
    path = tmp_path / name
    if name == "a.jsonl":
        make_lines(path, RECORDS)
    else:
        path.write_text(json.dumps(RECORDS, ensure_ascii=False), encoding="utf-8")
    parts = list(split_records(path, rows_per_part))
    assert [part.num_rows for part in parts] == [
        min(rows_per_part, 7 - start) for start in range(0, 7, rows_per_part)
    ]
    entries = read_all(path, rows_per_part)
    assert [record for _, record in entries] == RECORDS
    first = "line 1" if name == "a.jsonl" else "entry 0"
    assert entries[0][0] == first


def test_lines_are_numbered_as_an_editor_does_and_bad_ones_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"n": 1}\n\n{bad\n[1]\n"x"\n{"n": \xff}\n' + b"[" * 9999 + b"\n{}"
    )
    assert read_all(path, 3) == read_all(path, 100)
    found = read_all(path, 100)
    assert found[0] == ("line 1", {"n": 1})
    assert found[-1] == ("line 8", {})
    assert [(entry.at, entry.reason) for entry in found[1:-1]] == [
        ("line 3", "json broken"),
        ("line 4", "json is not an object"),
        ("line 5", "json is not an object"),
        ("line 6", "json broken"),
        ("line 7", "json broken"),
    ]


def test_a_broken_array_gives_what_precedes_and_says_where(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"n": 0}, {"n": 1}, {"n": 2}, {"n"')
    for rows_per_part in (2, 3, 9):
        *records, last = read_all(path, rows_per_part)
        assert [record["n"] for _, record in records] == [0, 1, 2]
        assert isinstance(last, Refusal)
        assert last.broken
        assert "byte 31" in last.at


def test_empty_files_have_no_parts(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "a.json").write_text("[]")
    assert list(split_records(tmp_path / "a.jsonl", 5)) == []
    assert list(split_records(tmp_path / "a.json", 5)) == []
    with pytest.raises(DataError, match="cannot be read"):
        list(split_records(tmp_path / "nowhere.jsonl", 5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{bad\n\n{"a": 1}\n', {"a": 1}),
        ('[5, {"a": 2}]', {"a": 2}),
        ('{\n  "a": 1\n}\n', None),
        ("[oops", None),
        ("", None),
    ],
)
def test_the_first_record_tells_what_a_file_is(tmp_path, text, expected):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert first_record(path) == expected
    assert first_record(tmp_path / "nowhere") is None
