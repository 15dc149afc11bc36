"""Parquet files as Hugging Face datasets and others write them."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.parquet_format import ParquetFormat
from mllm_npu.data.convert.source_format import Options, Refusal

PARQUET = ParquetFormat()


def read_all(path, **options):
    listing, chosen = list_files(path), Options(**options)
    return [e for part in PARQUET.split(listing, chosen) for e in PARQUET.read(part, chosen)]


def values_of(row):
    return json.loads(row.members["json"])


def write_table(path, rows_per_group=100, **columns):
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, path, row_group_size=rows_per_group)
    return path


def test_pictures_and_class_names_of_a_data_set(tmp_path, album):
    names = [str(album / "a.jpg"), str(album / "b.png")]
    features = Features({"image": Image(), "label": ClassLabel(names=["red", "green"])})
    Dataset.from_dict({"image": names, "label": [0, 1]}, features=features).to_parquet(
        tmp_path / "x.parquet"
    )
    assert PARQUET.recognises(list_files(tmp_path / "x.parquet"))
    red, green = read_all(tmp_path / "x.parquet")
    assert values_of(red)["caption"] == "red"
    assert values_of(green)["caption"] == "green"
    assert red.members["jpg"] == (album / "a.jpg").read_bytes()
    assert green.members["png"] == (album / "b.png").read_bytes()


def test_conversations_with_a_list_of_pictures(tmp_path, album):
    features = Features(
        {
            "images": List(Image()),
            "texts": List({"user": Value("string"), "assistant": Value("string")}),
        }
    )
    rows = {
        "images": [[str(album / "a.jpg")], []],
        "texts": [[{"user": "What?", "assistant": "Red."}], [{"user": "Hi", "assistant": "Ho"}]],
    }
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "x.parquet")
    with_picture, without = read_all(tmp_path / "x.parquet")
    assert list(with_picture.members) == ["0.jpg", "json"]
    assert list(without.members) == ["json"]
    assert values_of(without)["messages"][1] == {"role": "assistant", "content": "Ho"}


def test_plain_bytes_paths_and_texts(tmp_path, album):
    data = (album / "a.jpg").read_bytes()
    write_table(tmp_path / "bytes.parquet", image=[data, b"junk"], text=["red", "broken"])
    row, refused = read_all(tmp_path / "bytes.parquet")
    assert row.members["jpg"] == data
    assert (refused.at, refused.reason) == ("row 1", "not a picture")
    write_table(tmp_path / "paths.parquet", image=["a.jpg", "../x"], text=["red", "x"])
    row, refused = read_all(tmp_path / "paths.parquet", images=str(album))
    assert row.members["jpg"] == data
    assert refused.reason == "picture outside the images folder"
    write_table(tmp_path / "texts.parquet", text=["only words"])
    assert values_of(read_all(tmp_path / "texts.parquet")[0]) == {"text": "only words"}
    write_table(tmp_path / "odd.parquet", x=[1])
    assert read_all(tmp_path / "odd.parquet")[0].detail == "x"


def test_edits_in_a_table(tmp_path, album):
    before, after = (album / "a.jpg").read_bytes(), (album / "b.png").read_bytes()
    write_table(
        tmp_path / "x.parquet",
        original_image=[before],
        edited_image=[after],
        edit_prompt=["make it green"],
    )
    [row] = read_all(tmp_path / "x.parquet")
    assert list(row.members) == ["source.jpg", "target.png", "json"]


def test_row_groups_become_parts(tmp_path):
    path = write_table(tmp_path / "x.parquet", 3, text=[f"t{n}" for n in range(10)])
    whole = PARQUET.split(list_files(path), Options(rows_per_shard=1000))
    assert [(part.start, part.end, part.num_rows) for part in whole] == [(0, 4, 10)]
    parts = PARQUET.split(list_files(path), Options(rows_per_shard=4001))
    assert len(parts) == 1
    small = Options(rows_per_shard=1)
    assert small.rows_per_part == 4000
    from mllm_npu.data.convert import parquet_format

    split = list(parquet_format._split_file(path, 4))
    assert [(part.start, part.end, part.first, part.num_rows) for part in split] == [
        (0, 2, 0, 6),
        (2, 4, 6, 4),
    ]
    read = [entry for part in split for entry in PARQUET.read(part, small)]
    assert [values_of(row)["text"] for row in read] == [f"t{n}" for n in range(10)]


@pytest.mark.parametrize("cut", ["head", "middle"])
def test_a_broken_file_is_reported(tmp_path, cut):
    texts = [f"{n} " * 500 for n in range(200)]
    path = write_table(tmp_path / "x.parquet", 50, text=texts)
    data = bytearray(path.read_bytes())
    if cut == "head":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        data[middle : middle + 2000] = b"\xff" * 2000
        path.write_bytes(data)
    entries = read_all(path)
    assert isinstance(entries[-1], Refusal)
    assert (entries[-1].reason, entries[-1].broken) == ("file broken", True)
    assert all(not isinstance(entry, Refusal) for entry in entries[:-1])
    assert len(entries) < 201
