"""Tables become records in small steps, with names for classes."""

import pyarrow
import pytest

from mllm_npu.data.convert import table_rows
from mllm_npu.data.convert.table_rows import class_columns, import_pyarrow, read_table
from mllm_npu.errors import DataError


def test_records_are_numbered_and_classes_named():
    batch = pyarrow.RecordBatch.from_pydict({"label": [0, 1, -1, None], "n": [5, 6, 7, 8]})
    found = list(read_table([batch, batch.slice(1, 1)], {"label": ["cat", "dog"], "gone": []}, 10))
    assert [at for at, _ in found] == ["row 10", "row 11", "row 12", "row 13", "row 14"]
    assert [record["label"] for _, record in found] == ["cat", "dog", -1, None, "dog"]
    assert found[0][1]["n"] == 5


def test_only_a_few_rows_are_python_objects_at_a_time(monkeypatch):
    monkeypatch.setattr(table_rows, "BATCH_ROWS", 2)
    steps = []

    class Batch:
        num_rows = 5

        def slice(self, start, count):
            steps.append((start, count))
            self.count = min(count, self.num_rows - start)
            return self

        def to_pylist(self):
            return [{}] * self.count

    rows = read_table([Batch()], {}, 0)
    next(rows)
    assert steps == [(0, 2)]
    assert len(list(rows)) == 4
    assert steps == [(0, 2), (2, 2), (4, 2)]


@pytest.mark.parametrize(
    "metadata", [None, {}, {b"huggingface": b"{bad"}, {b"huggingface": b'{"info": {}}'}]
)
def test_a_schema_without_classes_has_none(metadata):
    assert class_columns(metadata) == {}


def test_classes_are_read_from_the_features():
    text = b'{"info": {"features": {"a": {"names": ["x"], "_type": "ClassLabel"}, "b": [1]}}}'
    assert class_columns({b"huggingface": text}) == {"a": ["x"]}


def test_without_pyarrow_it_says_what_to_install(monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(table_rows.importlib, "import_module", fail)
    with pytest.raises(DataError, match=r'pip install "mllm-npu\[data\]"'):
        import_pyarrow()
