import time

import pytest

from mllm_npu.train.throughput import Throughput


def test_counts_work_and_starts_anew(make_batch):
    throughput = Throughput()
    batch = make_batch("rdrb")
    throughput.count([batch, batch])
    work = throughput.work()
    assert work == {
        "steps": 1.0,
        "tokens": 2.0 * batch.num_tokens,
        "targets": 2.0 * 9,
        "samples": 6.0,
        "tiles": 10.0,
    }
    rates = throughput.rates(work)
    assert rates["tokens_per_second"] > 0
    assert rates["samples_per_second"] * 10 == pytest.approx(rates["tiles_per_second"] * 6)
    assert throughput.work()["samples"] == 0.0


def test_measures_the_share_of_waiting():
    throughput = Throughput()
    with throughput.waiting():
        time.sleep(0.02)
    assert throughput.rates({})["data_wait_share"] > 0.5
    assert throughput.rates({})["data_wait_share"] == 0.0


def test_times_go_on_after_a_resume():
    throughput = Throughput(seconds=100.0, cpu_seconds=50.0)
    assert 100.0 <= throughput.seconds < 101.0
    assert 50.0 <= throughput.cpu_seconds < 51.0
