"""Let a device train a small transformer for a while, and see that it is fast, steady and exact.

Every round starts from the same values and takes the same steps, so its losses must be the same to
the last bit; a device that now and then computes something else is broken.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mllm_npu.device.doctor.check import Check, State
from mllm_npu.device.doctor.trial import SIZES, STEPS_PER_ROUND, Size, Trial, exact_numbers
from mllm_npu.device.peaks import peak_flops
from mllm_npu.device.platform import platform_of
from mllm_npu.errors import ConfigError

_SLOWER = 0.1
"""Share of speed lost from the first to the last third that deserves a remark."""

Progress = Callable[[float, float], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnIn:
    """What a device did.

    Args:
        device: its name.
        seconds: how long it worked, without the first round.
        round_seconds: of every round but the first.
        losses: of the first round, one per step.
        deviating: rounds whose losses were others.
        largest_difference: between a loss and that of the first round.
        guess: loss of guessing, about which the first loss lies.
        flops: operations per second, of the model.
        peak: the most the device can do; None where that is unknown.
    """

    device: str
    seconds: float
    round_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    deviating: tuple[int, ...]
    largest_difference: float
    guess: float
    flops: float
    peak: float | None

    @property
    def steps_per_second(self) -> float:
        """How fast it was on average."""
        return STEPS_PER_ROUND * len(self.round_seconds) / self.seconds

    @property
    def computes(self) -> bool:
        """Whether the losses are ones that such steps give: near guessing first, then falling."""
        first, last = self.losses[0], self.losses[-1]
        return 0.5 * self.guess < first < 4 * self.guess and last < first

    @property
    def slowdown(self) -> float:
        """Share of speed lost between the first third of the rounds and the last."""
        third = max(1, len(self.round_seconds) // 3)
        first = statistics.median(self.round_seconds[:third])
        return 1 - first / statistics.median(self.round_seconds[-third:])


def burn_in(
    device: torch.device,
    seconds: float,
    *,
    size: Size | None = None,
    progress: Progress = lambda done, total: None,
) -> BurnIn:
    """Train until the time is over, at least two rounds.

    Args:
        device: what is tried.
        seconds: how long.
        size: of the model; None takes one that keeps the kind of device busy.
        progress: is called with the seconds done and all seconds.

    Raises:
        ConfigError: no time is given.
        RuntimeError: the device fails, or has too little memory left.
    """
    if seconds <= 0:
        raise ConfigError(f"A burn-in of {seconds} s was asked for. Give a positive number.")
    progress(0.0, seconds)
    size = size or SIZES["cpu" if device.type == "cpu" else "accelerator"]
    with exact_numbers():
        trial = Trial(device, size)
        first = trial.play_round()
        rounds: list[float] = []
        deviating: list[int] = []
        largest = 0.0
        begin = time.perf_counter()
        while not rounds or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            losses = trial.play_round()
            rounds.append(time.perf_counter() - start)
            if losses != first:
                deviating.append(len(rounds))
                largest = max(largest, _difference(losses, first))
            progress(min(time.perf_counter() - begin, seconds), seconds)
    spent = sum(rounds)
    peak = peak_flops(device, platform_of(device).compute_dtype)
    return BurnIn(
        device=_name(device),
        seconds=spent,
        round_seconds=tuple(rounds),
        losses=first,
        deviating=tuple(deviating),
        largest_difference=largest,
        guess=math.log(size.classes),
        flops=size.step_flops() * STEPS_PER_ROUND * len(rounds) / spent,
        peak=None if peak is None else peak.flops,
    )


def judge(result: BurnIn) -> Check:
    """What a burn-in says about a device."""
    share = "" if result.peak is None else f", {result.flops / result.peak:.0%} of the peak"
    steps = STEPS_PER_ROUND * len(result.round_seconds)
    found = (
        f"{steps} steps in {result.seconds:.0f} s on {result.device}: "
        f"{result.steps_per_second:.1f} steps/s, {result.flops / 1e12:.2f} TFLOP/s{share}"
    )
    state: State = "good"
    advice = ""
    if not all(math.isfinite(loss) for loss in result.losses):
        state, found = "bad", f"{found}; losses are not finite: {result.losses}"
        advice = "run it again; where it repeats, take this device out of use"
    elif not result.computes:
        state, found = "bad", f"{found}; these are no losses of such steps: {result.losses}"
        advice = "the device does not compute what it is asked: look at driver and libraries first"
    elif result.deviating:
        state = "bad"
        found += (
            f"; {len(result.deviating)} of {len(result.round_seconds)} rounds gave other losses "
            f"from the same start, by up to {result.largest_difference:.2g}"
        )
        advice = "the device computes wrongly at times: take it out of use and have it tested"
    elif result.slowdown > _SLOWER:
        state = "notice"
        found += f"; the last third was {result.slowdown:.0%} slower than the first"
        advice = "look at temperature, power limit and other processes while it runs"
    else:
        found += "; every round gave the same losses"
    return Check(name="burn-in", state=state, found=found, advice=advice, figures=_figures(result))


def _difference(losses: tuple[float, ...], first: tuple[float, ...]) -> float:
    gaps = [abs(loss - other) for loss, other in zip(losses, first, strict=True)]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps)


def _name(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    index = torch.accelerator.current_device_index()
    return f"{device.type}:{index} {torch.get_device_module(device).get_device_name(index)}"


def _figures(result: BurnIn) -> dict[str, float]:
    figures = {
        "seconds": round(result.seconds, 3),
        "steps_per_second": round(result.steps_per_second, 3),
        "flops_per_second": result.flops,
        "slowdown_share": round(result.slowdown, 4),
        "deviating_rounds": float(len(result.deviating)),
        "rounds": float(len(result.round_seconds)),
        "first_loss": result.losses[0],
        "last_loss": result.losses[-1],
    }
    if result.peak is not None:
        figures["peak_share"] = result.flops / result.peak
    # JSON knows no other numbers.
    return {name: value for name, value in figures.items() if math.isfinite(value)}
