"""A run's speed is counted from what its parts cost and what its device could do."""

import time

import pytest
import torch

from mllm_npu.device.peaks import Peak
from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.train import speed
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.speed import start_throughput


@pytest.fixture
def start():
    def start_counting(**changes):
        objective = MultimodalObjective(model=tiny_seed(), trainable=["*", "!image_decoder.*"])
        settings = {
            "objective": objective,
            "device": torch.device("cpu"),
            "compute_dtype": torch.float32,
            "recompute": "none",
            "num_ranks": 1,
            "copies": 1,
            "tokens_per_pack": None,
        }
        return start_throughput(**{**settings, **changes})

    return start_counting


def test_without_flops_no_part_is_looked_at(start, monkeypatch):
    monkeypatch.setattr(speed, "measure_costs", None)
    monkeypatch.setattr(speed, "peak_flops", None)
    throughput = start(count_flops=False, num_ranks=4, copies=2, tokens_per_pack=99)
    assert (throughput.num_ranks, throughput.copies, throughput.tokens_per_pack) == (4, 2, 99)
    throughput.count([tiny_batch()])
    rates = throughput.rates(throughput.work())
    assert "mfu" not in rates
    assert "flops_per_second" not in rates


def hardware_flops(throughput):
    flops = throughput.costs.of([tiny_batch()])
    return flops.hardware, flops.total


def test_blocks_that_are_run_again_cost_the_device_and_not_the_model(start):
    none, selective, full = (
        hardware_flops(start(recompute=name)) for name in ("none", "selective", "full")
    )
    assert none[1] == selective[1] == full[1] > 1e6
    assert none[0] == none[1]
    assert selective[0] - none[0] == pytest.approx((full[0] - none[0]) / 2)
    # All is trained, so a forward pass is a third of everything, and blocks are most of it.
    assert 0.15 < full[0] / none[0] - 1 < 0.34


def test_the_share_of_the_peak_is_that_of_all_ranks(start, monkeypatch):
    asked = []

    def peak_flops(device, compute_dtype):
        asked.append((device.type, compute_dtype))
        return Peak(flops=1e6, source="made up")

    monkeypatch.setattr(speed, "peak_flops", peak_flops)
    throughput = start(num_ranks=2, compute_dtype=torch.bfloat16)
    assert asked == []  # the threads may still change, and so may the peak
    throughput.count([tiny_batch()])
    rates = throughput.rates(throughput.work())
    assert asked == [("cpu", torch.bfloat16)]
    assert rates["mfu"] == pytest.approx(rates["flops_per_second"] / (2 * 1e6))
    throughput.count([tiny_batch()])
    throughput.rates(throughput.work())
    assert len(asked) == 2


def test_a_device_nobody_knows_has_speeds_and_no_share(start, monkeypatch):
    monkeypatch.setattr(speed, "peak_flops", lambda device, compute_dtype: None)
    throughput = start()
    throughput.count([tiny_batch()])
    rates = throughput.rates(throughput.work())
    assert rates["flops_per_second"] > 0
    assert "mfu" not in rates


@pytest.mark.parametrize("count_flops", [True, False])
def test_what_came_before_the_run_lowers_its_goodput(start, count_flops):
    throughput = start(setup_seconds=50.0, count_flops=count_flops)
    assert 50.0 <= time.time() - throughput.state()["started_at"] < 50.0 + 30.0
