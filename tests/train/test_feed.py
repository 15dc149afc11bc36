"""Micro-batches come in order, are counted, and a run with nothing to learn from stops."""

import pytest

from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.feed import MOST_IDLE_STEPS, Feed, share_packs
from mllm_npu.train.objectives.mllm import MultimodalObjective


@pytest.fixture
def make(make_model, make_batches):
    def make_feed(per_step=2, **settings):
        objective = MultimodalObjective(model=make_model(), trainable=["*"])
        return Feed(batches=make_batches(**settings), objective=objective, per_step=per_step)

    return make_feed


def test_each_update_gets_the_next_micro_batches(make):
    feed = make(per_step=3)
    feed.begin()
    first, second = feed.next(1), feed.next(2)
    assert [batch.keys[0] for batch in first] == ["1-0", "2-0", "3-0"]
    assert [batch.keys[0] for batch in second] == ["4-0", "5-0", "6-0"]
    assert feed.batches.consumed == 6


def test_it_begins_where_the_data_are_when_it_is_told_to(make):
    feed = make()
    feed.batches.load_state_dict({"consumed": 40})
    feed.begin()
    assert feed.next(1)[0].keys[0] == "41-0"
    feed.batches.load_state_dict({"consumed": 7})
    feed.begin()
    assert feed.next(2)[0].keys[0] == "8-0"


@pytest.mark.parametrize(("end", "whole_steps"), [(6, 3), (5, 2), (1, 0)])
def test_data_that_end_inside_an_update_name_the_last_whole_one(make, end, whole_steps):
    feed = make(end=end)
    feed.begin()
    for step in range(1, whole_steps + 1):
        feed.next(step)
    with pytest.raises(TrainingError, match=f"data end at step {whole_steps}.*epochs=null"):
        feed.next(whole_steps + 1)


def test_elements_are_added_up_over_the_micro_batches(make, make_batch):
    feed = make()
    texts = {0: [2, 3, 4], 1: [5], 2: [6, 7]}
    batches = [make_batch("rd", texts=texts), make_batch("ddb", texts={0: [2, 3], 1: [4]})]
    assert feed.count(batches) == {"language": 4.0 + 3.0, "image": 1.0 + 2.0}
    assert feed.count(batches[:1]) == {"language": 4.0, "image": 1.0}
    assert feed.count([]) == {}


def test_too_many_updates_in_a_row_without_work_stop_and_say_what_was_empty(make):
    feed = make()
    nothing = {"language": 0.0, "image": 0.0}
    for _ in range(MOST_IDLE_STEPS - 1):
        feed.require_work(nothing)
    with pytest.raises(TrainingError, match=rf"{MOST_IDLE_STEPS} steps .*language, image had no"):
        feed.require_work(nothing)


def test_one_update_with_work_begins_the_count_anew(make):
    feed = make()
    for number in range(3 * MOST_IDLE_STEPS):
        working = number % MOST_IDLE_STEPS == MOST_IDLE_STEPS - 1
        feed.require_work({"language": 0.0, "image": 1.0 if working else 0.0})


@pytest.mark.parametrize(
    ("packs_per_step", "accumulate", "ranks", "share"),
    [(None, 3, 4, 3), (None, 1, 1, 1), (8, 3, 4, 2), (8, 1, 8, 1), (6, 5, 1, 6)],
)
def test_packs_of_an_update_are_shared_out(packs_per_step, accumulate, ranks, share):
    assert share_packs(packs_per_step, accumulate, ranks) == share


@pytest.mark.parametrize(("packs_per_step", "ranks"), [(7, 2), (3, 4), (0, 1), (-4, 2)])
def test_packs_that_cannot_be_shared_out_are_refused_with_both_numbers(packs_per_step, ranks):
    with pytest.raises(ConfigError, match=f"packs_per_step={packs_per_step} .*{ranks} ranks"):
        share_packs(packs_per_step, 1, ranks)
