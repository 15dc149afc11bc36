"""Parts are multiples of shards, and refusals have a reason that can be counted."""

import pytest

from mllm_npu.data.convert.source_format import Options, refuse
from mllm_npu.errors import SkipSample


@pytest.mark.parametrize(
    ("rows_per_shard", "rows_per_part"), [(1, 4000), (300, 3900), (1000, 4000), (9000, 9000)]
)
def test_a_part_is_whole_shards(rows_per_shard, rows_per_part):
    assert Options(rows_per_shard=rows_per_shard).rows_per_part == rows_per_part


def test_the_reason_stands_before_the_colon():
    refusal = refuse(SkipSample("picture file missing: a: b.jpg"), "line 3")
    assert (refusal.reason, refusal.detail) == ("picture file missing", "a: b.jpg")
    assert (refusal.at, refusal.broken) == ("line 3", False)
    assert refuse(SkipSample("text empty"), "").detail == ""
