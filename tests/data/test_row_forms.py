import pytest

from mllm_npu.data.row_forms import RowForms
from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.shards import write_shard
from mllm_npu.data.tasks.pure_text import PureText


@pytest.fixture
def shards(tmp_path, make_row):
    for shard, texts in enumerate(((b"seven", b"", b"a red circle"), (b"a",))):
        rows = [make_row(f"r{n}", txt=text) for n, text in enumerate(texts)]
        write_shard(tmp_path / f"{shard}.tar", rows)
    return ShardSet(shards=str(tmp_path / "*.tar"))


def test_forms_of_each_shard_in_the_order_of_its_rows(shards, processor):
    forms = RowForms(shards=shards, task=PureText())
    texts = ("seven", "a red circle")
    assert forms.table(0, processor).text.tolist() == [processor.count_tokens(t) for t in texts]
    assert forms.table(0, processor).first.tolist() == [0, 1, 1, 2]
    assert forms.table(1, processor).text.tolist() == [processor.count_tokens("a")]


def test_kept_forms_are_not_read_again(shards, processor):
    def refuse(number):
        raise AssertionError(number)

    first = RowForms(shards=shards, task=PureText()).totals(0, processor)
    again = RowForms(shards=shards, task=PureText(), read=refuse)
    assert again.totals(0, processor) == first
    assert len(again.table(0, processor)) == 3
    with pytest.raises(AssertionError):
        RowForms(shards=shards, task=PureText(), read=refuse, meaning="x").table(0, processor)


def test_rows_may_be_read_otherwise_than_they_are_stored(shards, processor, make_row):
    forms = RowForms(
        shards=shards,
        task=PureText(),
        read=lambda number: make_row(txt=b"seven " * (number + 1)),
        meaning="longer",
    )
    assert forms.table(1, processor).text.tolist() == [
        processor.count_tokens("seven seven seven seven")
    ]
