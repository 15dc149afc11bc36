"""The format of a source is recognised, or the choice is explained."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from mllm_npu.data.convert.formats import (
    FORMATS,
    choose_format,
    describe_formats,
    format_called,
)
from mllm_npu.data.convert.listing import list_files
from mllm_npu.errors import ConfigError, DataError


def test_names_are_unique_and_aliases_work():
    names = [name for one in FORMATS for name in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)
    assert format_called("llava") is format_called("ShareGPT") is format_called("chat")
    assert format_called("parquet").name == "parquet"
    assert len(describe_formats().splitlines()) == len(FORMATS)
    with pytest.raises(ConfigError, match=r"'lava' was asked for\. Known are webdataset/"):
        format_called("lava")


def test_every_format_is_recognised_alone(tmp_path, make_tar, picture):
    make_tar(tmp_path / "a.tar", [("0.jpg", picture())])
    make_tar(tmp_path / "b.tar", [("0.pkl", b"N.")])
    lines = {
        "captions": {"image": "a.jpg", "caption": "x"},
        "ocr": {"image": "a.jpg", "data": ["q", "a"]},
        "text": {"text": "x"},
        "chat": {"messages": [{"role": "user", "content": "x"}]},
        "edit": {"source_image": "a", "target_image": "b", "instruction": "x"},
    }
    expected = {"a.tar": "webdataset", "b.tar": "interleaved", "x.parquet": "parquet"}
    for name, record in lines.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
        expected[f"{name}.jsonl"] = name
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "x.parquet")
    (tmp_path / "x.arrow").write_bytes(b"")
    (tmp_path / "x.bmp").write_bytes(picture("BMP"))
    expected |= {"x.arrow": "arrow", "x.bmp": "folder"}
    assert {name: choose_format(list_files(tmp_path / name)).name for name in expected} == expected
    assert set(expected.values()) == {one.name for one in FORMATS}


def test_pictures_beside_records_are_their_pictures(album, make_lines):
    make_lines(album / "labels.jsonl", [{"image": "a.jpg", "label": "red"}])
    assert choose_format(list_files(album)).name == "captions"


def test_two_formats_in_one_folder_are_not_guessed_between(tmp_path, make_tar, make_lines):
    make_tar(tmp_path / "a.tar", [("0.jpg", b"x")])
    make_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match=r"which is webdataset or text.*--format"):
        choose_format(list_files(tmp_path))


def test_what_is_not_known_is_described(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"holds 1 \.csv, 1 \.gz.*none of the formats") as error:
        choose_format(list_files(tmp_path))
    assert describe_formats() in str(error.value)
