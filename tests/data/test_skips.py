import pytest

from mllm_npu.data.skips import Outcome, SkipCounter
from mllm_npu.errors import DataError

USED = Outcome()


def skip(reason="broken", where="set (a.tar)"):
    return Outcome(reason=reason, where=where)


def test_counts_by_reason():
    counter = SkipCounter()
    counter.note([USED, skip(), skip("empty"), skip()])
    assert counter.by_reason == {"broken": 2, "empty": 1}


def test_stops_after_so_many_in_a_row_and_names_the_worst_shard():
    counter = SkipCounter(most_in_a_row=5)
    counter.note([skip()] * 4)
    with pytest.raises(DataError, match=r"5 samples in a row .* 4 of them from set \(a\.tar\)"):
        counter.note([skip("empty", "set (b.tar)")])


def test_a_used_sample_starts_the_row_anew():
    counter = SkipCounter(most_in_a_row=3)
    for _ in range(10):
        counter.note([skip(), skip(), USED])
    assert counter.by_reason["broken"] == 20
