"""A request goes where it waits least, or by lot."""

import random
from collections import Counter

import pytest

from mllm_npu.serve.dispatch import Dispatch, Lottery, ShortestQueue, make_pick
from mllm_npu.serve.registry import Worker


@pytest.fixture
def workers():
    return [Worker(url=f"http://worker-{name}", models=()) for name in "abc"]


def test_the_shortest_queue_wins(workers):
    for worker, load in zip(workers, (2, 1, 3), strict=True):
        worker.load = load
    assert ShortestQueue()(workers) is workers[1]


def test_what_is_under_way_counts_before_the_next_heartbeat(workers):
    pick = ShortestQueue()
    for _ in range(9):
        pick(workers).in_flight += 1
    assert [worker.in_flight for worker in workers] == [3, 3, 3]


def test_of_equals_the_one_that_waited_longest_is_next(workers):
    pick = ShortestQueue()
    assert [pick(workers).url[-1] for _ in range(6)] == list("abcabc")


def test_a_fast_worker_may_have_a_longer_queue(workers):
    workers[2].speed, workers[2].load = 4.0, 2
    workers[0].load = workers[1].load = 1
    assert ShortestQueue()(workers) is workers[2]


def test_the_lottery_draws_in_proportion_to_speed(workers):
    workers[0].speed = 6.0
    pick = Lottery(chance=random.Random(0))
    drawn = Counter(pick(workers).url[-1] for _ in range(4000))
    assert drawn["a"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert drawn["b"] / drawn["c"] == pytest.approx(1, abs=0.2)


def test_each_word_of_the_command_line_is_a_way_to_choose():
    assert isinstance(make_pick(Dispatch("shortest_queue")), ShortestQueue)
    assert isinstance(make_pick(Dispatch("lottery")), Lottery)
