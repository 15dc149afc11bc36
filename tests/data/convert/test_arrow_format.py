"""Folders of ``save_to_disk`` are read without the library that wrote them."""

import json

import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from mllm_npu.data.convert.arrow_format import ArrowFormat
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.source_format import Options, Refusal

ARROW = ArrowFormat()


def read_all(path):
    options = Options()
    parts = ARROW.split(list_files(path), options)
    return [entry for part in parts for entry in ARROW.read(part, options)]


@pytest.fixture
def data_set(album):
    features = Features(
        {
            "id": Value("string"),
            "image": Image(),
            "label": ClassLabel(names=["red", "green"]),
        }
    )
    pictures = [str(album / "a.jpg"), str(album / "b.png")] * 3
    rows = {"id": [f"r{n}" for n in range(6)], "image": pictures, "label": [0, 1] * 3}
    return Dataset.from_dict(rows, features=features)


def test_a_data_set_of_several_files(data_set, tmp_path, album):
    data_set.save_to_disk(tmp_path / "saved", num_shards=2)
    assert ARROW.recognises(list_files(tmp_path / "saved"))
    assert len(ARROW.split(list_files(tmp_path / "saved"), Options())) == 2
    rows = read_all(tmp_path / "saved")
    assert [json.loads(row.members["json"])["caption"] for row in rows] == ["red", "green"] * 3
    assert json.loads(rows[4].members["json"])["meta"] == {"id": "r4"}
    assert rows[1].members["png"] == (album / "b.png").read_bytes()


def test_all_splits_of_a_dictionary(data_set, tmp_path):
    splits = DatasetDict({"train": data_set, "test": data_set.select([0])})
    splits.save_to_disk(tmp_path / "saved")
    assert len(read_all(tmp_path / "saved")) == 7
    assert len(read_all(tmp_path / "saved" / "test")) == 1


def test_conversations(tmp_path, album):
    features = Features(
        {
            "image": Image(),
            "conversations": List({"from": Value("string"), "value": Value("string")}),
        }
    )
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}]
    rows = {"image": [str(album / "a.jpg")], "conversations": [talk]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    [row] = read_all(tmp_path / "saved")
    assert list(row.members) == ["0.jpg", "json"]


def test_files_with_a_footer_are_read_as_well(tmp_path):
    table = pyarrow.table({"text": ["one", "two"]})
    with (
        pyarrow.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    texts = [json.loads(row.members["json"])["text"] for row in read_all(tmp_path / "x.arrow")]
    assert texts == ["one", "two"]


def test_caches_are_passed_over(data_set, tmp_path):
    data_set.save_to_disk(tmp_path / "saved")
    [path] = list_files(tmp_path / "saved").paths(".arrow")
    (path.parent / "cache-0123.arrow").write_bytes(path.read_bytes())
    assert len(read_all(tmp_path / "saved")) == 6


@pytest.mark.parametrize("kept", [10, 900])
def test_a_broken_file_gives_what_precedes(tmp_path, kept):
    schema = pyarrow.schema({"text": pyarrow.string()})
    with (
        pyarrow.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, schema) as writer,
    ):
        for number in range(8):
            writer.write_batch(pyarrow.record_batch({"text": [f"t{number}" * 20]}))
    data = (tmp_path / "x.arrow").read_bytes()
    (tmp_path / "x.arrow").write_bytes(data[:kept])
    *rows, last = read_all(tmp_path / "x.arrow")
    assert isinstance(last, Refusal)
    assert last.broken
    texts = [json.loads(row.members["json"])["text"] for row in rows]
    assert texts == [f"t{number}" * 20 for number in range(len(rows))]
    assert len(rows) == 0 if kept == 10 else 0 < len(rows) < 8
