"""JSON formats take the files that hold their kind and leave those that belong to pictures."""

import json

import pytest

from mllm_npu.data.convert.json_format import JsonFormat
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.ocr_record import OcrRecord
from mllm_npu.data.convert.record_rows import KINDS
from mllm_npu.data.convert.source_format import Options
from mllm_npu.data.convert.text_record import TextRecord

TEXTS = JsonFormat(kind=TextRecord())


def names(source_format, folder, **options):
    listing, chosen = list_files(folder), Options(**options)
    parts = source_format.split(listing, chosen)
    return [entry for part in parts for entry in source_format.read(part, chosen)]


def test_a_format_is_named_as_its_kind():
    for kind in KINDS:
        made = JsonFormat(kind=kind)
        assert (made.name, made.aliases, made.summary) == (kind.name, kind.aliases, kind.summary)


@pytest.mark.parametrize(
    ("name", "text", "is_text"),
    [
        ("a.jsonl", '{"text": "x"}\n', True),
        ("a.ndjson", '{"text": "x"}\n', True),
        ("a.json", '[{"text": "x"}]', True),
        ("a.json", '{"text": "x"}\n{"text": "y"}\n', True),
        ("a.jsonl", '{"image": "a.jpg", "data": ["q", "a"]}\n', False),
        ("a.txt", '{"text": "x"}\n', False),
    ],
)
def test_the_first_object_decides(tmp_path, name, text, is_text):
    (tmp_path / name).write_text(text)
    assert TEXTS.recognises(list_files(tmp_path)) is is_text
    assert TEXTS.recognises(list_files(tmp_path / name)) is is_text


def test_a_json_beside_a_picture_is_no_file_of_records(tmp_path):
    (tmp_path / "7.json").write_text(json.dumps({"text": "belongs to 7.png"}))
    (tmp_path / "pretty.json").write_text(json.dumps({"text": "x"}, indent=1))
    assert not TEXTS.recognises(list_files(tmp_path))
    assert TEXTS.split(list_files(tmp_path), Options()) == []


def test_pictures_lie_beside_the_file_or_where_it_is_said(tmp_path, album, make_lines):
    records = [{"image": "a.jpg", "data": ["q", "a"]}]
    make_lines(album / "1.jsonl", records)
    (tmp_path / "rows").mkdir()
    make_lines(tmp_path / "rows" / "1.jsonl", records)
    ocr = JsonFormat(kind=OcrRecord())
    assert names(ocr, album / "1.jsonl")[0].key == "0000000"
    assert names(ocr, tmp_path / "rows")[0].reason == "picture file missing"
    assert names(ocr, tmp_path / "rows", images=str(album))[0].key == "0000000"


def test_files_are_split_into_parts(tmp_path, make_lines):
    for name in ("a.jsonl", "b.jsonl"):
        make_lines(tmp_path / name, [{"text": "x"}] * 9000)
    parts = TEXTS.split(list_files(tmp_path), Options(rows_per_shard=4000))
    assert [part.num_rows for part in parts] == [4000, 4000, 1000] * 2
    assert [part.first for part in parts] == [0, 4000, 8000] * 2
