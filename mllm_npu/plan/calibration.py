"""Measure this machine for planning, and keep what was measured in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mllm_npu.device.memory import machine_gib
from mllm_npu.device.peaks import peak_flops
from mllm_npu.device.process import usable_cores
from mllm_npu.evaluate.machine import describe_machine
from mllm_npu.plan.cluster import Accelerator, Cluster, Efficiency, Link
from mllm_npu.plan.exchange_trial import ExchangeTimes, measure_exchanges
from mllm_npu.plan.neighbours import neighbours
from mllm_npu.plan.replay import prepare, time_call
from mllm_npu.plan.traced_step import Operation
from mllm_npu.plan.trial_step import PHASES, SIZES, TrialStep, take_steps

Progress = Callable[[int, int], object]

VERSION = 5
_FOLDER = Path("mllm-npu") / "plan"
_LARGE = 8 << 20
"""Values of a vector that no cache holds."""
_FAR = 1e6
"""Hours, GB per second: of what a machine at hand does not wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """What a step costs beside its operations alone, by phase.

    Args:
        each: seconds of every operation: modules, autograd, dispatch.
        byte: seconds of every byte moved, which in a step is not in the cache.
    """

    each: Mapping[str, float]
    byte: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured of one device and its processes.

    Args:
        device: its name.
        threads: torch computed with.
        gemm: operations per second of a large product, by dtype.
        bandwidth: bytes per second of a large sum of two vectors.
        launch: seconds of the shortest operation.
        surplus: of a step beside its operations.
        ranks: what exchanges between processes cost.
    """

    device: str
    threads: int
    gemm: Mapping[str, float]
    bandwidth: float
    launch: float
    surplus: Surplus
    ranks: ExchangeTimes


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
    name = _device_name(device)
    stages = len(SIZES) + 2
    progress(0, stages)
    several = ranks > 1 and device.type == "cpu"
    gemm = _gemm_rates(device)
    with neighbours(ranks if several else 1):
        bandwidth, launch = _vector_rates(device)
        trials = []
        for number, size in enumerate(SIZES):
            progress(number + 1, stages)
            trials.append(take_steps(size, device))
        surplus = find_surplus(trials, device, bandwidth=bandwidth)
    progress(stages - 1, stages)
    exchanged = measure_exchanges(ranks) if several else ExchangeTimes(exchanges={})
    progress(stages, stages)
    found = Calibration(
        device=name,
        threads=threads,
        gemm=gemm,
        bandwidth=bandwidth,
        launch=launch,
        surplus=surplus,
        ranks=exchanged,
    )
    _write(file, found)
    return found


def find_surplus(trials: Sequence[TrialStep], device: torch.device, *, bandwidth: float) -> Surplus:
    """Compare steps with their operations made alone.

    Args:
        trials: of different sizes, which tell operations and bytes apart.
        device: on which the operations are made.
        bandwidth: for those that cannot be made alone.
    """
    each: dict[str, float] = {}
    byte: dict[str, float] = {}
    for phase in PHASES:
        rows, left = [], []
        for trial in trials:
            made = [one for one in trial.operations if one.phase == phase]
            alone = sum(one.calls * _alone(one, device, bandwidth) for one in made)
            rows.append(
                [sum(one.calls for one in made), sum(one.calls * one.bytes for one in made)]
            )
            left.append(max(0.0, trial.seconds[phase] - alone))
        each[phase], byte[phase] = solve_surplus(rows, left)
    return Surplus(each=each, byte=byte)


def solve_surplus(rows: Sequence[Sequence[float]], left: Sequence[float]) -> tuple[float, float]:
    """Seconds per operation and per byte, neither below 0, that explain what is left over.

    Args:
        rows: operations and bytes of each trial.
        left: seconds that their operations alone do not explain.
    """
    table, over = np.asarray(rows, dtype=np.float64), np.asarray(left, dtype=np.float64)
    # Shares, so that the small trial counts as much as the large one.
    scale = 1 / np.maximum(over, 1e-9)
    both = np.linalg.lstsq(table * scale[:, None], over * scale, rcond=None)[0]
    if both.min() >= 0:
        return float(both[0]), float(both[1])
    alone = [float((over / table[:, column]).mean()) for column in (0, 1)]
    return (alone[0], 0.0) if both[1] < 0 else (0.0, alone[1])


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
    gathered = found.ranks.exchanges.get("all_gather", [(0, 0.0), (1, 1e-9)])
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


def _alone(operation: Operation, device: torch.device, bandwidth: float) -> float:
    call = prepare(operation, device)
    return operation.bytes / bandwidth if call is None else time_call(call, device)


def _gemm_rates(device: torch.device) -> dict[str, float]:
    rates = {}
    for name in ("float32", "bfloat16"):
        peak = peak_flops(device, getattr(torch, name))
        if peak is not None:
            rates[name] = peak.flops
    return rates


def _vector_rates(device: torch.device) -> tuple[float, float]:
    """Bytes per second of a long sum, seconds of a short one."""
    operation = {"name": "aten.add.Tensor", "part": "", "phase": "forward", "dtype": "float32"}
    times = []
    for length in (_LARGE, 8):
        shapes = ((length,), (length,), (length,))
        one = Operation(**operation, shapes=shapes, flops=0.0, bytes=0, calls=1)  # type: ignore[arg-type]
        times.append(_alone(one, device, 1.0))
    return 3 * 4 * _LARGE / times[0], times[1]


def _read(file: Path) -> Calibration | None:
    """What was kept; None where there is nothing that can be used."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        surplus = Surplus(**values.pop("surplus"))
        ranks = values.pop("ranks")
        times = {kind: [(int(size), float(took)) for size, took in rows]
                 for kind, rows in ranks.pop("exchanges").items()}  # fmt: skip
        exchanged = ExchangeTimes(**ranks, exchanges=times)
        return Calibration(**values, surplus=surplus, ranks=exchanged)
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
