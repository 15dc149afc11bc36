"""Measure this machine for planning, and keep what was measured in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mllm_npu.device.memory import machine_gib
from mllm_npu.device.peaks import peak_flops
from mllm_npu.device.process import usable_cores
from mllm_npu.evaluate.machine import describe_machine
from mllm_npu.plan.cluster import Accelerator, Cluster, Efficiency, Link
from mllm_npu.plan.exchange_trial import Times
from mllm_npu.plan.kernel_times import Kind, kind_of, make_kinds
from mllm_npu.plan.neighbours import neighbours
from mllm_npu.plan.ranks_trial import RanksTrial, read_times, try_ranks
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.surplus import Sharding, Surplus, find_sharding, find_surplus
from mllm_npu.plan.traced_step import Operation
from mllm_npu.plan.trial_step import SIZES, take_steps

Progress = Callable[[int, int], object]

VERSION = 6
_STAGES = 3
_FOLDER = Path("mllm-npu") / "plan"
_LARGE = 8 << 20
"""Values of a vector that no cache holds."""
_FAR = 1e6
"""Hours, GB per second: of what a machine at hand does not wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured of one device and its processes.

    Args:
        device: its name.
        threads: torch computed with.
        gemm: operations per second of a large product, by dtype.
        bandwidth: bytes per second of a large sum of two vectors.
        launch: seconds of the shortest operation.
        usual: seconds of the steady clock's step when all this was measured.
        surplus: of a step beside its operations.
        exchanges: between processes, by kind and size; none of one process.
        sharding: what surrounds them where parameters are sharded.
    """

    device: str
    threads: int
    gemm: Mapping[str, float]
    bandwidth: float
    launch: float
    usual: float
    surplus: Surplus
    exchanges: Times
    sharding: Sharding


def calibrate(
    device: torch.device,
    *,
    ranks: int = 1,
    fresh: bool = False,
    progress: Progress = lambda done, total: None,
) -> Calibration:
    """Measure a device and exchanges between processes on it, or read what was measured before.

    Args:
        device: of this machine.
        ranks: processes that will train together.
        fresh: measure again.
        progress: is called with the measurements done and all of them.
    """
    file = cache_file(device, ranks)
    if not fresh:
        kept = _read(file)
        if kept is not None:
            return kept
    threads = torch.get_num_threads()
    several = ranks > 1 and device.type == "cpu"
    progress(0, _STAGES)
    gemm = _gemm_rates(device)
    progress(1, _STAGES)
    tried = try_ranks(ranks, threads=threads) if several else _try_alone(device)
    progress(2, _STAGES)
    steps = [step for size in tried.steps for step in size.values()]
    with neighbours(ranks if several else 1):
        clock = SteadyClock(device, usual=tried.usual)
        bandwidth, launch = _vector_rates(clock)
        kinds = make_kinds([one for step in steps for one in step.operations], clock)
    alone = functools.partial(_alone, kinds, bandwidth)
    surplus = find_surplus([size["single"] for size in tried.steps], alone)
    sharding = Sharding()
    if several:
        sharded = [size["fsdp2"] for size in tried.steps]
        sharding = find_sharding(sharded, alone, surplus=surplus, times=tried.exchanges)
    progress(_STAGES, _STAGES)
    found = Calibration(
        device=_device_name(device),
        threads=threads,
        gemm=gemm,
        bandwidth=bandwidth,
        launch=launch,
        usual=tried.usual,
        surplus=surplus,
        exchanges=tried.exchanges,
        sharding=sharding,
    )
    _write(file, found)
    return found


def measure_cluster(*, name: str, node_size: int, fresh: bool) -> Cluster:
    """The processors of this machine as a cluster of one node; the target of its card.

    Args:
        name: of the card.
        node_size: processes that train together.
        fresh: measure again instead of reading what was measured before.
    """
    device = torch.device("cpu")
    found = calibrate(device, ranks=max(1, node_size), fresh=fresh)
    memory = machine_gib() / max(1, node_size)
    gathered = found.exchanges.get("all_gather", [(0, 0.0), (1, 1e-9)])
    (small, soon), (large, late) = gathered[0], gathered[-1]
    bandwidth = (large - small) / max(late - soon, 1e-9) / 1e9
    link = Link(bandwidth_gb=bandwidth, latency_us=soon * 1e6, source="measured: gloo, all-gather")
    return Cluster(
        name=name,
        accelerator=Accelerator(
            name=found.device,
            kind=device.type,
            memory_gib=memory,
            usable_share=0.9,
            bandwidth_gb=found.bandwidth / 1e9,
            launch_us=found.launch * 1e6,
            matrix_launch_us=found.launch * 1e6,
            host_us=0.0,
            host_link_gb=found.bandwidth / 1e9,
            peak_tflops={dtype: rate / 1e12 for dtype, rate in found.gemm.items()},
            sources={"all": f"measured here with {found.threads} thread(s)"},
        ),
        num_nodes=1,
        node_size=node_size,
        inside=link,
        between=link,
        efficiency=Efficiency(compute=1, memory=1, exchange=1, source="measured rates, no peaks"),
        host_memory_gib=machine_gib(),
        host_bandwidth_gb=found.bandwidth / 1e9,
        storage_gb=1.0,
        failure_hours=_FAR,
        restart_seconds=60,
        sources={"storage_gb": "planning value", "failure_hours": "planning value"},
        is_here=True,
    )


def cache_file(device: torch.device, ranks: int) -> Path:
    """Where the numbers of this machine are kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _FOLDER
    about = {
        "version": VERSION,
        "machine": {**describe_machine(device), "threads": torch.get_num_threads()},
        "node": platform.node(),
        "torch": str(torch.__version__),
        "device": _device_name(device),
        "cores": usable_cores(),
        "ranks": ranks,
    }
    about["machine"].pop("memory_gib")  # type: ignore[attr-defined]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:24]}.json"


def _device_name(device: torch.device) -> str:
    if device.type == "cpu":
        return str(describe_machine(device)["processor"])
    return str(torch.get_device_module(device).get_device_name())


def _try_alone(device: torch.device) -> RanksTrial:
    clock = SteadyClock(device)
    steps = [take_steps(size, clock) for size in SIZES]
    return RanksTrial(usual=clock.usual, exchanges={}, steps=steps)


def _alone(kinds: Mapping[Kind, float], bandwidth: float, operation: Operation) -> float:
    """Seconds of an operation; what could not be made goes by its bytes."""
    return kinds.get(kind_of(operation), operation.bytes / bandwidth)


def _gemm_rates(device: torch.device) -> dict[str, float]:
    rates = {}
    for name in ("float32", "bfloat16"):
        peak = peak_flops(device, getattr(torch, name))
        if peak is not None:
            rates[name] = peak.flops
    return rates


def _vector_rates(clock: SteadyClock) -> tuple[float, float]:
    """Bytes per second of a long sum, seconds of a short one."""
    sums = [
        Operation(
            name="aten.add.Tensor",
            part="",
            phase="forward",
            shapes=((length,),) * 3,
            dtype="float32",
            flops=0.0,
            bytes=12 * length,
            calls=1,
        )
        for length in (_LARGE, 8)
    ]
    made = make_kinds(sums, clock)
    long, short = (made[kind_of(one)] for one in sums)
    return sums[0].bytes / long, short


def _read(file: Path) -> Calibration | None:
    """What was kept; None where there is nothing that can be used."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        surplus, sharding = Surplus(**values.pop("surplus")), Sharding(**values.pop("sharding"))
        times = read_times(values.pop("exchanges"))
        return Calibration(**values, surplus=surplus, sharding=sharding, exchanges=times)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # Not there, written by another version, or cut off: it is measured again.
        return None


def _write(file: Path, found: Calibration) -> None:
    partial = file.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
        partial.replace(file)
    except OSError:
        # A folder that cannot be written only costs the next plan its seconds.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
