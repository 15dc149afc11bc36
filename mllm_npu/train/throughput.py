"""How fast a run goes, what it waits for, and what share of its time and of the device it uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mllm_npu.batch import Batch
from mllm_npu.train.flops import Costs

_COUNTED = ("tokens", "targets", "samples", "tiles", "drawn")
_SPENT = ("wait_seconds", "save_seconds", "evaluation_seconds")
_FLOPS = "flops/"


class Throughput:
    """Counts work and time between two log lines and over the whole run; asks no device.

    Args:
        costs: what the parts of the model cost; None counts no FLOPs.
        peak: FLOPs per second one rank can do at best, asked anew at every log because a CPU's
            depends on its threads; None where that is unknown.
        num_ranks: over which ``work`` is summed.
        copies: ranks that see the same batch because they share its sequences.
        tokens_per_pack: room of a batch, whose unused part counts as padding; None counts none.
        setup_seconds: wall time this process had spent before, such as building the model.
        state: what ``state`` gave, from a checkpoint; None for a new run.
    """

    def __init__(
        self,
        *,
        costs: Costs | None = None,
        peak: Callable[[], float | None] | None = None,
        num_ranks: int = 1,
        copies: int = 1,
        tokens_per_pack: int | None = None,
        setup_seconds: float = 0.0,
        state: Mapping[str, float] | None = None,
    ) -> None:
        before = {"seconds": 0.0, "cpu_seconds": 0.0} | dict(state or {})
        self.costs = costs
        self.peak = peak
        self.num_ranks = num_ranks
        self.copies = copies
        self.tokens_per_pack = tokens_per_pack
        self._run_start = time.perf_counter() - before["seconds"]
        self._run_cpu_start = time.process_time() - before["cpu_seconds"]
        first_start = time.time() - before["seconds"] - setup_seconds
        self._started_at = before.get("started_at", first_start)
        self._good_before = before.get("good_seconds", 0.0)
        self._totals = {
            name: before.get(f"total/{name}", 0.0) for name in ("steps", *_COUNTED, "flops")
        }
        self._loop_start: float | None = None
        self._not_good = 0.0
        self._is_inside = False
        self._restart()

    @property
    def seconds(self) -> float:
        """Wall time of the whole run, resumed parts included, time between them left out."""
        return time.perf_counter() - self._run_start

    @property
    def cpu_seconds(self) -> float:
        """Processor time of this process over the whole run, resumed parts included."""
        return time.process_time() - self._run_cpu_start

    @property
    def good_seconds(self) -> float:
        """Wall time of steps that count: neither set up, waited, saved, evaluated nor lost."""
        if self._loop_start is None:
            return self._good_before
        return self._good_before + time.perf_counter() - self._loop_start - self._not_good

    @property
    def goodput(self) -> float:
        """Share of good seconds in all since the run was first started.

        What lies between a crash and the resume counts as lost, and so do steps behind the
        checkpoint from which the run went on.
        """
        wall = max(time.time() - self._started_at, self.seconds, 1e-9)
        return max(self.good_seconds, 0.0) / wall

    def resumed(self, state: Mapping[str, float]) -> Throughput:
        """Counts on from a checkpoint, with the same settings.

        Args:
            state: what ``state`` gave.
        """
        return Throughput(
            costs=self.costs,
            peak=self.peak,
            num_ranks=self.num_ranks,
            copies=self.copies,
            tokens_per_pack=self.tokens_per_pack,
            state=state,
        )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a ``with`` block as waiting for data; the first one begins the loop."""
        if self._loop_start is None:
            self._loop_start = time.perf_counter()
        with self._spend("wait_seconds"):
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count the time of a ``with`` block as writing a checkpoint."""
        with self._spend("save_seconds"):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of a ``with`` block as evaluation."""
        with self._spend("evaluation_seconds"):
            yield

    def lose(self, seconds: float) -> None:
        """Take good seconds back: their steps were thrown away and will be done again."""
        self._not_good += seconds

    def count(self, batches: Sequence[Batch]) -> None:
        """Count the work of one optimizer step, after its forward passes; batches on the host."""
        work = self._work
        work["steps"] += 1
        for batch in batches:
            work["tokens"] += batch.num_tokens
            work["targets"] += batch.num_targets
            work["samples"] += batch.num_samples
            work["tiles"] += batch.tiles.shape[0]
            work["drawn"] += batch.num_drawn
            work["blank_tokens"] += _count_blank(batch)
            work["room"] += max(batch.num_tokens, self.tokens_per_pack or 0)
        if self.costs is not None:
            flops = self.costs.of(batches)
            work["hardware_flops"] += flops.hardware
            for name, value in flops.parts.items():
                work[_FLOPS + name] += value

    def work(self) -> dict[str, float]:
        """What this rank did and spent since the last ``rates``, to be summed over all ranks."""
        return dict(self._work)

    def rates(self, work: Mapping[str, float]) -> dict[str, Any]:
        """Speeds since the last call, then start counting anew.

        Speeds are over the time in which the run trained or waited for data; saves and evaluation
        are told apart, and ``goodput`` counts them all.

        Args:
            work: sums over all ranks of what ``work`` gave.

        Returns:
            ``*_per_second`` of all ranks together (images and tiles are both what the encoder
            sees), ``data_wait_share``, ``padding_share``, ``save_seconds`` and
            ``evaluation_seconds`` since the last call, ``goodput``, ``seconds``, ``cpu_seconds``.
            With costs also ``flops_per_second`` (of the model) and ``flops_share`` by part; with a
            known peak ``mfu`` and ``hfu``, the shares of it that the model needs and that the
            device computes.
        """
        done = self._share(work)
        paused = done["save_seconds"] + done["evaluation_seconds"]
        elapsed = max(time.perf_counter() - self._start - paused, 1e-9)
        rates: dict[str, Any] = {
            f"{name}_per_second": done[name] / elapsed for name in ("steps", *_COUNTED)
        }
        rates["images_per_second"] = rates["tiles_per_second"]
        rates["data_wait_share"] = done["wait_seconds"] / elapsed
        real = done["tokens"] - done["blank_tokens"]
        rates["padding_share"] = 1 - real / done["room"] if done["room"] else 0.0
        rates["save_seconds"] = done["save_seconds"]
        rates["evaluation_seconds"] = done["evaluation_seconds"]
        rates["goodput"] = self.goodput
        rates["seconds"] = self.seconds
        rates["cpu_seconds"] = self.cpu_seconds
        rates |= self._utilisation(done, elapsed)
        self._totals = self.totals(work)
        self._restart()
        return rates

    def totals(self, work: Mapping[str, float] | None = None) -> dict[str, float]:
        """Steps, tokens, targets, samples, tiles, pictures drawn and model FLOPs of the whole run.

        Lost steps are in it, because they were computed.

        Args:
            work: sums over all ranks of what ``work`` gives now; None takes it that all ranks did
                what this one did since the last ``rates``.
        """
        if work is None:
            work = {name: value * self.num_ranks for name, value in self._work.items()}
        done = self._share(work)
        done["flops"] = sum(_part_flops(done).values())
        return {name: total + done[name] for name, total in self._totals.items()}

    def state(self, work: Mapping[str, float] | None = None) -> dict[str, float]:
        """What a checkpoint keeps, so that a resumed run goes on counting.

        Args:
            work: see ``totals``.
        """
        totals = {f"total/{name}": value for name, value in self.totals(work).items()}
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "good_seconds": self.good_seconds,
            "started_at": self._started_at,
            **totals,
        }

    @contextmanager
    def _spend(self, name: str) -> Iterator[None]:
        """Count a ``with`` block under a name; a block inside another one belongs to the outer."""
        if self._is_inside:
            yield
            return
        start = time.perf_counter()
        self._is_inside = True
        try:
            yield
        finally:
            self._is_inside = False
            spent = time.perf_counter() - start
            self._work[name] += spent
            self._not_good += spent if self._loop_start is not None else 0.0

    def _share(self, work: Mapping[str, float]) -> dict[str, float]:
        """Work as if each batch was seen once, steps and seconds as if there was one rank."""
        shared = {*_SPENT, "steps"}
        known = dict.fromkeys(self._work, 0.0) | dict(work)
        return {
            name: value / (self.num_ranks if name in shared else self.copies)
            for name, value in known.items()
        }

    def _utilisation(self, done: Mapping[str, float], elapsed: float) -> dict[str, Any]:
        parts = _part_flops(done)
        total = sum(parts.values())
        if total == 0:
            return {}
        found: dict[str, Any] = {
            "flops_per_second": total / elapsed,
            "flops_share": {name: value / total for name, value in parts.items()},
        }
        peak = None if self.peak is None else self.peak()
        if peak:
            most = peak * self.num_ranks * elapsed
            found |= {"mfu": total / most, "hfu": done["hardware_flops"] / most}
        return found

    def _restart(self) -> None:
        self._start = time.perf_counter()
        names = ["steps", *_COUNTED, *_SPENT, "blank_tokens", "room"]
        if self.costs is not None:
            names += ["hardware_flops", *(_FLOPS + name for name in self.costs.parts)]
        self._work = dict.fromkeys(names, 0.0)


def _part_flops(work: Mapping[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(_FLOPS): value for name, value in work.items() if name.startswith(_FLOPS)
    }


def _count_blank(batch: Batch) -> int:
    """Tokens of the sequence that is only there to keep the graph the same."""
    starts = (0, *batch.sequence_ends)
    lengths = zip(starts, batch.sequence_ends, batch.sources, strict=False)
    return sum(end - start for start, end, source in lengths if not source)
