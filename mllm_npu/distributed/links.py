"""Try every kind of exchange between the ranks: right values, delay of small ones, speed of large.

Speed is counted as nccl-tests counts it (bus bandwidth): what one rank sends and receives at the
same time, so that it can be compared with the speed of the wire whatever the exchange.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mllm_npu.device.doctor.check import Check
from mllm_npu.device.platform import platform_of
from mllm_npu.distributed.mesh import Mesh

LARGE_BYTES = {"cpu": 8 << 20, "accelerator": 64 << 20}
# Their names from torch 2.13 on, and before.
_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
_SMALL_REPEATS, _LARGE_REPEATS = 20, 5
_WARM_UP = 2

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one rank saw of one kind of exchange.

    Args:
        exchange: its name.
        is_right: whether every value arrived where it belongs.
        seconds: a small exchange takes.
        bytes_per_second: of a large one; 0 where only objects are exchanged.
    """

    exchange: str
    is_right: bool
    seconds: float
    bytes_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """An exchange that is ready to be made.

    Args:
        call: makes it.
        result: where its values arrive.
        expected: what they must be after the first call.
    """

    call: Callable[[], object]
    result: Tensor
    expected: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Who makes an exchange, of how much: ``piece`` values for each of ``size`` ranks."""

    rank: int
    size: int
    piece: int
    device: torch.device

    def fill(self, value: float, pieces: int = 1) -> Tensor:
        return torch.full((pieces * self.piece,), float(value), device=self.device)

    def spread(self, values: Sequence[float]) -> Tensor:
        """One value per piece."""
        rows = torch.tensor(values, dtype=torch.float32)
        return rows.repeat_interleave(self.piece).to(self.device)


def try_links(
    mesh: Mesh,
    device: torch.device,
    *,
    large_bytes: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Link]:
    """Make every exchange once for its values and a few times for its speed; all ranks in step.

    Args:
        mesh: the ranks, more than one.
        device: where the values lie.
        large_bytes: of a large exchange; None takes what suits the kind of device.
        progress: is called with the exchanges done and all of them.

    Raises:
        RuntimeError: an exchange fails.
    """
    kind = "cpu" if device.type == "cpu" else "accelerator"
    large = LARGE_BYTES[kind] if large_bytes is None else large_bytes
    links = []
    for number, (name, make, share) in enumerate(_EXCHANGES):
        progress(number, len(_EXCHANGES) + 1)
        links.append(_try_tensors(name, make, share(mesh.world_size), mesh, device, large))
    progress(len(_EXCHANGES), len(_EXCHANGES) + 1)
    with mesh.progress.inside("objects"):
        links.append(_try_objects(mesh))
    progress(len(_EXCHANGES) + 1, len(_EXCHANGES) + 1)
    return links


def judge(seen: Sequence[Sequence[Link]], device: torch.device) -> tuple[Check, ...]:
    """One row per kind of exchange, from what all ranks saw; the slowest counts.

    Args:
        seen: of every rank in order, what ``try_links`` gave.
        device: where the values lay.
    """
    backend = platform_of(device).collective_backend
    checks = []
    for ranks in zip(*seen, strict=True):
        seconds = max(link.seconds for link in ranks)
        speed = min(link.bytes_per_second for link in ranks)
        found = f"{seconds * 1e3:.2f} ms small"
        figures = {"latency_seconds": seconds, "ranks": float(len(ranks))}
        if speed:
            found += f", {speed / 1e9:.2f} GB/s large"
            figures["bytes_per_second"] = speed
        wrong = [str(rank) for rank, link in enumerate(ranks) if not link.is_right]
        checks.append(
            Check(
                name=f"link {ranks[0].exchange}",
                state="bad" if wrong else "good",
                found=f"wrong values on rank {', '.join(wrong)}" if wrong else found,
                advice=f"see that all ranks have one version of torch and of {backend}"
                if wrong
                else "",
                figures=figures,
            )
        )
    return tuple(checks)


def _try_tensors(
    name: str,
    make: Callable[[_Place], _Trial],
    share: float,
    mesh: Mesh,
    device: torch.device,
    large: int,
) -> Link:
    def place(piece: int) -> _Place:
        return _Place(rank=mesh.rank, size=mesh.world_size, piece=piece, device=device)

    # What is made ready is noted apart, so that a rank that stops there is not taken to wait.
    mesh.progress.note(f"making {name} ready")
    piece = max(1, large // 4 // mesh.world_size)
    small, big = make(place(1)), make(place(piece))
    is_right = True
    for trial in (small, big):
        with mesh.progress.inside(name):
            trial.call()
            is_right &= bool(torch.equal(trial.result, trial.expected))
        trial.result.zero_()  # sums in place would grow without end
    with mesh.progress.inside(name):
        seconds = _time(small.call, _SMALL_REPEATS, device)
    with mesh.progress.inside(name):
        large_seconds = _time(big.call, _LARGE_REPEATS, device)
    sent = share * 4 * mesh.world_size * piece
    return Link(
        exchange=name,
        is_right=is_right,
        seconds=seconds,
        bytes_per_second=sent / large_seconds,
    )


def _try_objects(mesh: Mesh) -> Link:
    """Python values, such as names of samples and folders."""
    found: list[object] = [None] * mesh.world_size

    def call() -> None:
        dist.all_gather_object(found, {"rank": mesh.rank})

    seconds = _time(call, _SMALL_REPEATS, torch.device("cpu"))
    expected = [{"rank": rank} for rank in range(mesh.world_size)]
    return Link(exchange="objects", is_right=found == expected, seconds=seconds)


def _time(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds one call takes, the median."""
    times = []
    for number in range(_WARM_UP + repeats):
        start = time.perf_counter()
        call()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        if number >= _WARM_UP:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _all_reduce(place: _Place) -> _Trial:
    values = place.fill(place.rank + 1, place.size)
    expected = place.fill(place.size * (place.size + 1) / 2, place.size)
    return _Trial(call=lambda: dist.all_reduce(values), result=values, expected=expected)


def _all_gather(place: _Place) -> _Trial:
    own, everything = place.fill(place.rank + 1), place.fill(0, place.size)
    return _Trial(
        call=lambda: _GATHER(everything, own),
        result=everything,
        expected=place.spread(range(1, place.size + 1)),
    )


def _reduce_scatter(place: _Place) -> _Trial:
    own = place.fill(0)
    everything = place.spread([(place.rank + 1) * (piece + 1) for piece in range(place.size)])
    return _Trial(
        call=lambda: _SCATTER(own, everything),
        result=own,
        expected=place.fill(place.size * (place.size + 1) / 2 * (place.rank + 1)),
    )


def _all_to_all(place: _Place) -> _Trial:
    received = place.fill(0, place.size)
    sent = place.spread([place.rank * place.size + piece for piece in range(place.size)])
    return _Trial(
        call=lambda: dist.all_to_all_single(received, sent),
        result=received,
        expected=place.spread([piece * place.size + place.rank for piece in range(place.size)]),
    )


def _broadcast(place: _Place) -> _Trial:
    values = place.fill(0 if place.rank else 7, place.size)
    expected = place.fill(7, place.size)
    return _Trial(call=lambda: dist.broadcast(values, src=0), result=values, expected=expected)


_EXCHANGES: tuple[tuple[str, Callable[[_Place], _Trial], Callable[[int], float]], ...] = (
    ("all_reduce", _all_reduce, lambda size: 2 * (size - 1) / size),
    ("all_gather", _all_gather, lambda size: (size - 1) / size),
    ("reduce_scatter", _reduce_scatter, lambda size: (size - 1) / size),
    ("all_to_all", _all_to_all, lambda size: (size - 1) / size),
    ("broadcast", _broadcast, lambda size: 1.0),
)
"""Name, how it is made, and which part of all bytes one rank sends."""
