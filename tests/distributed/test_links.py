"""Exchanges between real ranks, and what is said about what they saw."""

import pytest
import torch
from launching import launch
from play_doctor import LARGE, try_links

from mllm_npu.distributed.links import Link, judge

CPU = torch.device("cpu")
EXCHANGES = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "objects"]


def link(exchange: str = "all_reduce", **settings) -> Link:
    return Link(**{"exchange": exchange, "is_right": True, "seconds": 1e-3} | settings)


def test_the_slowest_rank_counts():
    seen = [
        [link(seconds=1e-3, bytes_per_second=2e9), link("objects", seconds=5e-4)],
        [link(seconds=3e-3, bytes_per_second=1e9), link("objects", seconds=4e-4)],
    ]
    first, second = judge(seen, CPU)
    assert (first.name, first.state) == ("link all_reduce", "good")
    assert first.found == "3.00 ms small, 1.00 GB/s large"
    assert first.figures == {"latency_seconds": 3e-3, "bytes_per_second": 1e9, "ranks": 2}
    assert second.found == "0.50 ms small"
    assert "bytes_per_second" not in second.figures


def test_ranks_with_wrong_values_are_named():
    (check,) = judge([[link()], [link(is_right=False)], [link(is_right=False)]], CPU)
    assert check.state == "bad"
    assert check.found == "wrong values on rank 1, 2"
    assert "gloo" in check.advice


@pytest.mark.slow
def test_all_exchanges_give_right_values_on_three_ranks(tmp_path):
    for seen in launch(try_links, size=3, folder=tmp_path):
        assert [row["exchange"] for row in seen] == EXCHANGES
        assert all(row["is_right"] for row in seen)
        assert all(row["seconds"] > 0 for row in seen)
        assert all(row["bytes_per_second"] > LARGE for row in seen[:-1])


@pytest.mark.slow
def test_a_rank_that_sends_something_else_is_seen(tmp_path):
    seen = launch(try_links, size=2, folder=tmp_path, wrong="all_to_all")
    wrong = [[row["exchange"] for row in rows if not row["is_right"]] for rows in seen]
    assert "all_to_all" in wrong[0]
    assert {*wrong[0], *wrong[1]} == {"all_to_all"}
