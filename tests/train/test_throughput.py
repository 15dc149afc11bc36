"""Speeds, waits, utilisation and goodput, on a clock the tests turn."""

import json

import pytest

from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.train import throughput as module
from mllm_npu.train.flops import measure_costs
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.throughput import Throughput


class Clock:
    """Wall time, and processor time that goes twice as fast."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now

    def time(self):
        return 1e9 + self.now

    def process_time(self):
        return 2 * self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def step(throughput, clock, batches, *, wait=1.0, work=3.0):
    with throughput.waiting():
        clock.spend(wait)
    clock.spend(work)
    throughput.count(batches)


def test_counts_work_and_starts_anew(clock, make_batch):
    throughput, batch = Throughput(), make_batch("rdrb")
    step(throughput, clock, [batch, batch])
    work = throughput.work()
    blank = 4
    assert work == {
        "steps": 1.0,
        "tokens": 2.0 * batch.num_tokens,
        "targets": 2.0 * 9,
        "samples": 6.0,
        "tiles": 10.0,
        "drawn": 2.0,
        "blank_tokens": 2.0 * blank,
        "room": 2.0 * batch.num_tokens,
        "wait_seconds": 1.0,
        "save_seconds": 0.0,
        "evaluation_seconds": 0.0,
    }
    rates = throughput.rates(work)
    assert rates["steps_per_second"] == 1 / 4
    assert rates["tokens_per_second"] == 2 * batch.num_tokens / 4
    assert rates["targets_per_second"] == 18 / 4
    assert rates["samples_per_second"] == 6 / 4
    assert rates["tiles_per_second"] == rates["images_per_second"] == 10 / 4
    assert rates["drawn_per_second"] == 2 / 4
    assert rates["padding_share"] == pytest.approx(blank / batch.num_tokens)
    assert throughput.work() == dict.fromkeys(work, 0.0)


def test_the_times_are_those_of_the_machine(make_batch):
    throughput = Throughput()
    with throughput.waiting():
        sum(range(10**5))
    throughput.count([make_batch("r")])
    rates = throughput.rates(throughput.work())
    assert 0 < rates["data_wait_share"] <= 1
    assert 0 < rates["goodput"] < 1
    assert rates["tokens_per_second"] > 0
    assert throughput.rates(throughput.work())["data_wait_share"] == 0.0


def test_waiting_is_a_share_of_training_and_saves_are_told_apart(clock, make_batch):
    throughput, batch = Throughput(), make_batch("r")
    step(throughput, clock, [batch])
    with throughput.saving():
        clock.spend(10.0)
    with throughput.evaluating():
        clock.spend(20.0)
        with throughput.waiting():  # belongs to the evaluation
            clock.spend(5.0)
    rates = throughput.rates(throughput.work())
    assert rates["data_wait_share"] == 1 / 4
    assert rates["tokens_per_second"] == batch.num_tokens / 4
    assert (rates["save_seconds"], rates["evaluation_seconds"]) == (10.0, 25.0)
    assert rates["goodput"] == pytest.approx(3 / 39)
    assert throughput.rates(throughput.work())["save_seconds"] == 0.0


def test_time_is_counted_where_a_block_fails(clock):
    throughput = Throughput()

    def wait_for_nothing():
        with throughput.waiting():
            clock.spend(2.0)
            next(iter(()))

    with pytest.raises(StopIteration):
        wait_for_nothing()
    with throughput.saving():
        clock.spend(1.0)
    assert throughput.work()["wait_seconds"] == 2.0
    assert throughput.work()["save_seconds"] == 1.0


def test_unused_room_of_a_pack_is_padding(clock, make_batch):
    batch = make_batch("rrb")
    throughput = Throughput(tokens_per_pack=2 * batch.num_tokens)
    step(throughput, clock, [batch])
    blank = 4
    rates = throughput.rates(throughput.work())
    assert rates["padding_share"] == pytest.approx(0.5 + blank / (2 * batch.num_tokens))
    tight = Throughput(tokens_per_pack=1)
    tight.count([batch])
    assert tight.rates(tight.work())["padding_share"] == pytest.approx(blank / batch.num_tokens)
    assert tight.rates(tight.work())["padding_share"] == 0.0


def test_sums_over_ranks_are_not_counted_twice(clock, make_batch):
    """Four ranks, each two of which share the sequences of a batch."""
    throughput, batch = Throughput(num_ranks=4, copies=2), make_batch("rd")
    step(throughput, clock, [batch])
    with throughput.saving():
        clock.spend(2.0)
    work = {name: 4 * value for name, value in throughput.work().items()}
    rates = throughput.rates(work)
    assert rates["steps_per_second"] == 1 / 4
    assert rates["tokens_per_second"] == 2 * batch.num_tokens / 4
    assert rates["data_wait_share"] == 1 / 4
    assert rates["save_seconds"] == 2.0
    assert throughput.totals()["tokens"] == 2 * batch.num_tokens
    assert throughput.totals()["steps"] == 1


@pytest.fixture
def costs():
    model = tiny_seed()
    objective = MultimodalObjective(model=model, trainable=["*", "!image_decoder.*"])
    return measure_costs(objective, recompute={"language_model": 1.0})


def test_utilisation_is_flops_over_what_all_ranks_could_do(clock, costs):
    batch = tiny_batch()
    flops = costs.of([batch])
    throughput = Throughput(costs=costs, peak=lambda: 1e9, num_ranks=2)
    step(throughput, clock, [batch])
    with throughput.evaluating():
        clock.spend(50.0)
    rates = throughput.rates({name: 2 * value for name, value in throughput.work().items()})
    assert rates["flops_per_second"] == pytest.approx(2 * flops.total / 4)
    assert rates["mfu"] == pytest.approx(2 * flops.total / 4 / 2e9)
    assert rates["hfu"] == pytest.approx(2 * flops.hardware / 4 / 2e9)
    assert rates["hfu"] > rates["mfu"] > 0
    assert sum(rates["flops_share"].values()) == pytest.approx(1.0)
    share = flops.parts["language_model"] / flops.total
    assert rates["flops_share"]["language_model"] == pytest.approx(share)
    assert throughput.totals()["flops"] == pytest.approx(2 * flops.total)


def test_without_a_known_peak_there_is_no_utilisation(clock, costs):
    throughput = Throughput(costs=costs)
    step(throughput, clock, [tiny_batch()])
    rates = throughput.rates(throughput.work())
    assert "mfu" not in rates
    assert "hfu" not in rates
    assert rates["flops_per_second"] > 0
    assert not {"flops_per_second", "flops_share", "mfu"} & set(throughput.rates({}))
    without = Throughput(peak=lambda: 1e9)
    step(without, clock, [tiny_batch()])
    assert not {"flops_per_second", "flops_share", "mfu"} & set(without.rates(without.work()))


def test_goodput_counts_setup_and_lost_steps_as_bad(clock, make_batch):
    throughput = Throughput(setup_seconds=6.0)
    clock.spend(1.0)  # what the objective prepares
    with throughput.evaluating():  # before the first step
        clock.spend(3.0)
    assert throughput.goodput == 0.0
    for _ in range(5):
        step(throughput, clock, [make_batch("r")])
    assert throughput.good_seconds == 15.0
    assert throughput.goodput == pytest.approx(15 / 30)
    throughput.lose(6.0)  # a rollback by two steps
    assert throughput.goodput == pytest.approx(9 / 30)
    assert throughput.seconds == 24.0
    assert throughput.totals()["steps"] == 5


def test_a_resumed_run_goes_on_counting(clock, make_batch):
    batch = make_batch("rd")
    throughput = Throughput(setup_seconds=1.0)
    step(throughput, clock, [batch])
    throughput.rates(throughput.work())
    step(throughput, clock, [batch])
    state = json.loads(json.dumps(throughput.state()))
    assert state["seconds"] == 8.0
    assert state["cpu_seconds"] == 16.0
    assert state["total/tokens"] == 2 * batch.num_tokens
    step(throughput, clock, [batch])  # a crash loses it
    clock.spend(10.0)  # until somebody starts the run again
    resumed = Throughput(state=state)
    assert resumed.seconds == 8.0
    step(resumed, clock, [batch])
    assert (resumed.seconds, resumed.cpu_seconds, resumed.good_seconds) == (12.0, 24.0, 9.0)
    assert resumed.goodput == pytest.approx(9 / (1 + 8 + 4 + 10 + 4))
    assert resumed.totals()["steps"] == 3
    assert resumed.totals()["samples"] == 6


def test_totals_are_those_of_all_ranks(clock, make_batch):
    throughput, batch = Throughput(num_ranks=2), make_batch("r")
    step(throughput, clock, [batch])
    more = {name: 3 * value for name, value in throughput.work().items()} | {"steps": 2.0}
    assert throughput.totals(more)["tokens"] == 3 * batch.num_tokens
    assert throughput.totals(more)["steps"] == 1
    assert throughput.state(more)["total/tokens"] == 3 * batch.num_tokens
    assert throughput.totals()["tokens"] == 2 * batch.num_tokens
    assert throughput.totals()["steps"] == 1
    assert throughput.work()["steps"] == 1.0


def test_a_throughput_goes_on_from_a_checkpoint_with_its_settings(clock, costs):
    first = Throughput(costs=costs, peak=lambda: 1e9, num_ranks=2, copies=2, tokens_per_pack=64)
    step(first, clock, [tiny_batch()])
    state = first.state()
    again = Throughput(costs=costs, peak=lambda: 1e9, num_ranks=2, copies=2, tokens_per_pack=64)
    clock.spend(5.0)  # until the weights are read
    resumed = again.resumed(state)
    assert (resumed.seconds, resumed.cpu_seconds) == (4.0, 8.0)
    assert resumed.good_seconds == 3.0
    assert resumed.goodput == pytest.approx(3 / 9)
    assert resumed.totals() == first.totals()
    for throughput in (first, resumed):
        throughput.rates(throughput.work())
        step(throughput, clock, [tiny_batch()])
    assert resumed.rates(resumed.work()).keys() == first.rates(first.work()).keys()


def test_times_alone_carry_over_too(clock):
    throughput = Throughput().resumed({"seconds": 100.0, "cpu_seconds": 50.0})
    clock.spend(1.0)
    assert throughput.seconds == 101.0
    assert throughput.cpu_seconds == 52.0
    assert throughput.goodput == 0.0
