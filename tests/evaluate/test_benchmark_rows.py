import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet
import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.benchmark_rows import (
    optional_text,
    read_field,
    read_text,
    split_rows,
    split_tables,
)


def write_tables(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"id": [f"{number}a", f"{number}b"]})
        if path.suffix == ".parquet":
            parquet.write_table(table, path)
        else:
            with ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
    return BenchmarkFiles(root, layout="data/test-00000-of-00001.parquet")


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (
            ["Art/dev-00000-of-00001.parquet", "Art/test-00000-of-00002.parquet"],
            "test",
            ["Art/test-00000-of-00002.parquet"],
        ),
        (
            ["data/validation-0.parquet", "data/test-0.parquet"],
            "val",
            ["data/validation-0.parquet"],
        ),
        (["data/val-0.parquet", "data/test-0.parquet"], "validation", ["data/val-0.parquet"]),
        (["test/data-0.arrow", "validation/data-0.arrow"], "test", ["test/data-0.arrow"]),
        (["default/test/0000.parquet", "default/dev/0000.parquet"], "dev", None),
        (["data-00000-of-00001.arrow"], "test", ["data-00000-of-00001.arrow"]),
        (["mini-test.arrow", "mini-train.arrow"], "test", ["mini-test.arrow"]),
        (["contest-0.parquet", "test-0.parquet"], "test", ["test-0.parquet"]),
    ],
)
def test_tables_of_a_split(names, split, found, tmp_path):
    files = write_tables(tmp_path, *names)
    assert split_tables(files, split) == (found or ["default/dev/0000.parquet"])


def test_a_split_that_is_not_there_is_refused(tmp_path):
    files = write_tables(tmp_path, "data/dev-0.parquet")
    with pytest.raises(DataError, match=r"no table of the split 'test'.*\ndata/test-00000"):
        split_tables(files, "test")


def test_no_table_at_all_is_refused(tmp_path):
    (tmp_path / "read.me").write_text("nothing")
    with pytest.raises(DataError, match="no table of the split"):
        split_tables(BenchmarkFiles(tmp_path, layout="x"), "test")


def test_rows_say_where_they_stand(tmp_path):
    files = write_tables(tmp_path, "test-0.parquet", "test-1.arrow")
    rows = list(split_rows(files, split_tables(files, "test")))
    assert [(where, row["id"]) for where, row in rows] == [
        ("test-0.parquet row 1", "0a"),
        ("test-0.parquet row 2", "0b"),
        ("test-1.arrow row 1", "1a"),
        ("test-1.arrow row 2", "1b"),
    ]


def test_a_field_is_read_or_refused_by_name():
    row = {"question": "Why?", "number": 3, "list": []}
    assert read_field(row, "list", "row 1") == []
    assert read_text(row, "question", "row 1") == "Why?"
    assert read_text(row, "number", "row 1") == "3"
    with pytest.raises(DataError, match=r"row 1: the field 'answer' was asked for, it has \['list"):
        read_text(row, "answer", "row 1")
    with pytest.raises(DataError, match=r"row 1: the field 'list' should be a text"):
        read_text(row, "list", "row 1")


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (None, ""), ("nan", ""), (float("nan"), ""), ("", ""), (7, "7"), ("None", "None")],
)
def test_what_may_be_missing(value, text):
    assert optional_text({"hint": value}, "hint") == text


def test_what_is_missing_is_empty():
    assert optional_text({}, "hint") == ""
