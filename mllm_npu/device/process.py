"""Tune the running process for CPU work: memory allocator and number of threads."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mllm_npu.errors import ConfigError

# glibc's malloc.h: mallopt parameter numbers.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_TOP_PAD_BYTES = 256 << 20

_SAMPLE_SECONDS = 0.2
_COUNTS_AS_BUSY = 0.6
"""Cores' worth of other work from which on a core is left to it; below it the machine is quiet."""
_HYSTERESIS = 0.25
"""How far beyond the border the load must be before a choice already made is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTuning:
    """What was done to the process.

    Args:
        threads: threads torch computes with.
        cores: cores the process may use.
        busy_cores: cores' worth of other processes' work when the choice was made.
        allocator_tuned: whether glibc's malloc now keeps freed memory instead of unmapping it.
    """

    threads: int
    cores: int
    busy_cores: float
    allocator_tuned: bool


def tune_process(
    threads: int | Literal["auto"] = "auto", *, previous: ProcessTuning | None = None
) -> ProcessTuning:
    """Set the allocator and torch's thread count; call it before the first large tensor.

    Two threads on cores that others use were up to 100 times slower than one; one thread on a
    quiet machine of two cores is 1.9 times slower than two. So the load decides.

    Args:
        threads: how many, or "auto" to choose by load.
        previous: result of an earlier call in this process; the choice then changes only for a
            clear reason.

    Raises:
        ConfigError: threads is neither a positive number nor "auto".
    """
    if threads != "auto" and (
        not isinstance(threads, int) or isinstance(threads, bool) or threads < 1
    ):
        raise ConfigError(
            f"threads={threads!r} was asked for. Use a whole number from 1 on, or auto."
        )
    cores = usable_cores()
    busy = busy_cores()
    if previous is None:
        # Both must say so: the average remembers the installation that just ended, the sample sees
        # a passing peak.
        busy = min(busy, os.getloadavg()[0])
    if threads == "auto":
        chosen = choose_threads(
            cores=cores, busy=busy, current=previous.threads if previous else None
        )
    else:
        chosen = threads
    tuned = previous.allocator_tuned if previous else tune_allocator()
    torch.set_num_threads(chosen)
    return ProcessTuning(
        threads=chosen, cores=cores, busy_cores=round(busy, 2), allocator_tuned=tuned
    )


def choose_threads(*, cores: int, busy: float, current: int | None = None) -> int:
    """How many threads to compute with; pure.

    Args:
        cores: cores the process may use.
        busy: cores' worth of work other processes do on them.
        current: the choice in force, kept while the load is near the border.
    """
    free = cores - busy + _COUNTS_AS_BUSY
    if (
        current is not None
        and current <= cores
        and current - _HYSTERESIS <= free < current + 1 + _HYSTERESIS
    ):
        return current
    return min(cores, max(1, math.floor(free)))


class ThreadWatch:
    """Keeps torch's thread count fitting while a run goes on; a look costs microseconds.

    A thread count that was right at the start becomes very wrong when another job begins: threads
    that wait for each other on a busy core were seen to slow a run ten times.

    Args:
        threads: a number never changes; "auto" follows the load.
        seconds: looks closer together than this change nothing.
    """

    def __init__(self, threads: int | Literal["auto"], *, seconds: float = 5.0) -> None:
        self.is_on = threads == "auto" and Path("/proc/stat").is_file()
        self.seconds = seconds
        self._mark = self._now() if self.is_on else (0.0, 0.0, 0.0)

    def look(self) -> int:
        """Choose anew by what others did since the last look; gives the threads in force."""
        threads = torch.get_num_threads()
        if not self.is_on:
            return threads
        clock, busy, own = self._now()
        wall = clock - self._mark[0]
        if wall < self.seconds:
            return threads
        others = max(0.0, (busy - self._mark[1]) - (own - self._mark[2])) / wall
        self._mark = (clock, busy, own)
        chosen = choose_threads(cores=usable_cores(), busy=others, current=threads)
        if chosen != threads:
            torch.set_num_threads(chosen)
        return chosen

    def _now(self) -> tuple[float, float, float]:
        """Seconds: of the clock, that the cores were busy, that this process computed."""
        ticks = _busy_ticks(Path("/proc/stat")) or 0
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def usable_cores() -> int:
    """Cores this process may run on: its affinity, cut to the control group's quota."""
    quota = _cpu_quota(Path("/sys/fs/cgroup/cpu.max"))
    cores = len(_own_cores())
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def busy_cores(seconds: float = _SAMPLE_SECONDS) -> float:
    """Cores' worth of work that other processes do on this process's cores, sampled now.

    Args:
        seconds: length of the sample; the call sleeps that long.

    Returns:
        A number from 0 to the number of cores; the load average where the system counts no ticks.
    """
    begin = _busy_ticks(Path("/proc/stat"))
    if begin is None:
        return os.getloadavg()[0]
    own, clock = time.process_time(), time.monotonic()
    time.sleep(seconds)
    end = _busy_ticks(Path("/proc/stat")) or begin
    wall = time.monotonic() - clock
    busy = (end - begin) / os.sysconf("SC_CLK_TCK") - (time.process_time() - own)
    return max(0.0, busy / wall)


def tune_allocator() -> bool:
    """Make glibc's malloc keep freed memory; else large tensors are mapped anew in every op.

    Returns:
        False where the C library is another one; nothing is changed then.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(bool(mallopt(parameter, value)) for parameter, value in settings)


def _own_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_quota(limits: Path) -> float | None:
    """Cores the control group grants per period, None where it grants all."""
    if not limits.is_file():
        return None
    quota, _, period = limits.read_text().partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _busy_ticks(statistics: Path) -> int | None:
    """Clock ticks this process's cores have not been idle since the machine started."""
    if not statistics.is_file():
        return None
    own = {f"cpu{number}" for number in _own_cores()}
    rows = [line.split() for line in statistics.read_text().splitlines()]
    fields = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in own]
    # user nice system idle iowait irq softirq steal; the rest repeats what user and nice hold.
    return sum(sum(times) - times[3] - times[4] for times in fields) if fields else None
