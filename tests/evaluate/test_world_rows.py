import pytest

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.errors import DataError
from mllm_npu.evaluate.world_rows import meta_of, read_rows, to_examples
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage


def test_rows_of_one_kind_of_question(digits_world):
    rows = read_rows(digits_world, "instruction", "test")
    sums = read_rows(digits_world, "instruction", "test", question="sum")
    assert 0 < len(sums) < len(rows)
    assert {meta_of(row)["kind"] for row in sums} == {"sum"}


def test_missing_shards_are_named(digits_world):
    with pytest.raises(DataError, match=r"nothing.*test-\*\.tar"):
        read_rows(digits_world, "nothing", "test")


def test_a_row_without_meta_has_none():
    assert meta_of(Row(key="a", members={"json": b"{}"})) == {}
    assert meta_of(Row(key="a", members={"json": b'{"meta": 3}'})) == {}


def test_an_example_is_the_row_before_its_answer(digits_world):
    rows = read_rows(digits_world, "unseen", "test")
    options = GenerationOptions(seed=5)
    examples = to_examples(rows, Instruction(), options)
    assert len({example.name for example in examples}) == len(rows)
    for row, example in zip(rows, examples, strict=True):
        assert example.options is options
        assert [turn.role for turn in example.conversation.turns] == ["user"]
        reads = any(isinstance(p, ReadImage) for p in example.conversation.turns[0].parts)
        is_reading = meta_of(row)["kind"] == "read"
        assert reads == is_reading
        assert bool(example.answer) == is_reading
        assert (example.truth is None) == is_reading
