"""A step and a cluster made by hand, with round numbers."""

import pytest
import torch

from mllm_npu.plan.cluster import Accelerator, Cluster, Efficiency, Link
from mllm_npu.plan.traced_step import Exchange, Memory, Operation, TracedStep


def operation(**changes):
    values = {
        "name": "aten.mm",
        "part": "language_model",
        "phase": "forward",
        "shapes": ((8, 8), (8, 8), (8, 8)),
        "dtype": "bfloat16",
        "flops": 1e12,
        "bytes": 10**9,
        "calls": 1,
    }
    return Operation(**{**values, **changes})


def exchange(**changes):
    values = {
        "kind": "all_gather",
        "axis": "shard",
        "ranks": 8,
        "part": "language_model",
        "phase": "forward",
        "bytes": 8 * 10**9,
        "calls": 1,
    }
    return Exchange(**{**values, **changes})


def memory(**changes):
    values = {
        "steady": 10 << 30,
        "peak": 20 << 30,
        "at_peak": {"parameters": 4 << 30, "optimizer": 6 << 30, "activations": 10 << 30},
        "parameters_by_part": {"language_model": 4 << 30},
        "margin": 1 << 30,
    }
    return Memory(**{**values, **changes})


def traced(**changes):
    values = {
        "operations": (operation(),),
        "exchanges": (),
        "memory": memory(),
        "host_bytes": 0,
        "tokens": 4096,
        "tiles": 0,
        "micro_batches": 1,
        "ranks": 8,
        "data_ranks": 8,
        "num_parameters": 10**9,
        "num_trained": 10**9,
        "model_flops": 3e12,
        "checkpoint_bytes": 16 * 10**9,
    }
    return TracedStep(**{**values, **changes})


def cluster(**changes):
    """Eight devices of 100 TFLOPS and 1 TB/s, 64 GiB each; all efficiencies are a half."""
    device = {
        "name": "made by hand",
        "kind": "cpu",
        "memory_gib": 64,
        "usable_share": 0.9,
        "bandwidth_gb": 1000,
        "launch_us": 2.0,
        "matrix_launch_us": 4.0,
        "host_us": 0.0,
        "host_link_gb": 10,
        "peak_tflops": {"bfloat16": 100, "float32": 50},
    }
    device |= changes.pop("accelerator", {})
    values = {
        "name": "by_hand",
        "accelerator": Accelerator(**device),
        "num_nodes": 1,
        "node_size": 8,
        "inside": Link(bandwidth_gb=100, latency_us=1.0),
        "between": Link(bandwidth_gb=10, latency_us=10.0),
        "efficiency": Efficiency(compute=0.5, memory=0.5, exchange=0.5),
        "host_memory_gib": 512,
        "host_bandwidth_gb": 80,
        "storage_gb": 10,
        "failure_hours": 10_000,
        "restart_seconds": 100,
    }
    return Cluster(**{**values, **changes})


@pytest.fixture
def fixed_clock(monkeypatch):
    """Makes a clock of the processor by whose factor every second counts."""
    from mllm_npu.plan.steady_clock import SteadyClock

    monkeypatch.setattr(SteadyClock, "_work", lambda self: 1.0)
    return lambda factor=1.0: SteadyClock(torch.device("cpu"), usual=factor)


@pytest.fixture
def make_operation():
    return operation


@pytest.fixture
def make_exchange():
    return exchange


@pytest.fixture
def make_memory():
    return memory


@pytest.fixture
def make_traced():
    return traced


@pytest.fixture
def make_cluster():
    return cluster


@pytest.fixture
def make_plan(make_traced, make_operation, make_exchange):
    """A plan of a step made by hand on the cluster made by hand."""
    from mllm_npu.plan.advice import Advice
    from mllm_npu.plan.goodput import Fleet, simulate
    from mllm_npu.plan.plan import Plan, Price
    from mllm_npu.plan.planner import Outcome, fit_of
    from mllm_npu.plan.roofline import Roofline
    from mllm_npu.plan.setting import Setting
    from mllm_npu.plan.step_time import Surroundings, time_step

    setting = Setting(
        kind="fsdp2",
        replicas=1,
        sequence_size=1,
        recompute="full",
        cpu_offload=False,
        tokens_per_pack=4096,
        accumulate=1,
    )
    around = Surroundings(
        peak_flops=100e12, host_link=1e9, host_memory=1e9, tile_rate=1e3, loads_ahead=True
    )

    def make(*, kept=None, ranks=(8, 1000), **changes):
        where = cluster()
        step = make_traced(
            operations=(
                make_operation(calls=10),
                make_operation(part="vision_encoder", flops=0.0, calls=3),
                make_operation(phase="backward", calls=20),
            ),
            exchanges=(make_exchange(bytes=10**8, calls=10),),
            memory=memory(**(kept or {})),
        )
        found = time_step(step, Roofline(cluster=where, stride=8), around)
        outcome = Outcome(
            setting=setting, traced=step, step=found, fit=fit_of(step, where), seconds=1.0
        )
        fleet = {
            "step_seconds": 1.0, "device_spread": 0.0, "step_spread": 0.02,
            "failure_seconds": 1e7, "restart_seconds": 100.0, "write_seconds": 10.0,
            "block_seconds": 10.0,
        }  # fmt: skip
        goodput = [simulate(Fleet(ranks=count, **fleet), steps=50) for count in ranks]
        values = {
            "name": "made/by_hand",
            "cluster": where,
            "outcome": outcome,
            "goodput": goodput,
            "checkpoint_seconds": 600.0,
            "checkpoint_goodput": 0.9,
            "price": Price(tokens=1e9, days=3.0, device_hours=576.0, cost=1152.0),
            "candidates": (),
            "advice": Advice(overrides=["parallel.recompute=none"], text="It would be faster."),
            "notes": ["Made <by> hand."],
            "seconds": 2.0,
        }
        return Plan(**{**values, **changes})

    return make
