"""What happens when a step goes wrong: not finite, or far larger than the steps before it.

A bad update is blocked on the device, without asking it, so no number of it reaches the weights.
The rest is decided at the next look at the losses, from numbers that are equal on all ranks.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.errors import ConfigError, TrainingError

Action = Literal["skip", "lower", "roll_back", "stop"]
_ACTIONS = ("skip", "lower", "roll_back", "stop")
_LEAST_HISTORY = 20
"""Steps behind a median; before that no step is a spike."""
_MAX_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What is known of an update once its numbers are on the host.

    Args:
        step: its number.
        loss: of the whole step, all ranks.
        grad_norm: before clipping.
        batches: of this rank.
        own_losses: this rank's share of the loss, one per batch.
    """

    step: int
    loss: float
    grad_norm: float
    batches: tuple[Batch, ...]
    own_losses: tuple[float, ...]

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An update that went wrong.

    Args:
        outcome: of the update.
        kind: ``not_finite`` or ``spike``.
        action: what is done.
        limit: gradient norm that was allowed.
    """

    outcome: StepOutcome
    kind: Literal["not_finite", "spike"]
    action: Action
    limit: float

    def __str__(self) -> str:
        outcome = self.outcome
        if self.kind == "not_finite":
            what = f"loss {outcome.loss}, gradient norm {outcome.grad_norm}"
        else:
            what = f"gradient norm {outcome.grad_norm:.4g} above {self.limit:.4g}"
        return f"step {outcome.step}: {what}. {tell_samples(outcome.batches)}"


class FaultPolicy:
    """Decides what is done about bad updates; their weights are never touched by the bad numbers.

    - ``skip``: the update is left out and training goes on;
    - ``lower``: that, and the learning rate is lowered from there on;
    - ``roll_back``: the last checkpoint comes back, and the samples since then are not seen again;
    - ``stop``: the run ends with an error.

    Args:
        not_finite: for a loss or gradient that is no number.
        spike: for a gradient norm far above those before it; null looks for none.
        spike_factor: how many times the median of the last norms makes a spike.
        window: steps the median is taken over.
        lower_factor: what a lowered learning rate is multiplied by.
        most_in_row: bad updates in a row that stop a run whatever the action.
        most_rollbacks: of a run; one more stops it.
        most_dumps: bad batches that are written to the run's folder.

    Attributes:
        newest: what the last judgement found, also where it ended the run.

    Raises:
        ConfigError: settings that make no sense.
    """

    def __init__(
        self,
        *,
        not_finite: Action = "skip",
        spike: Action | None = None,
        spike_factor: float = 10.0,
        window: int = 200,
        lower_factor: float = 0.5,
        most_in_row: int = 10,
        most_rollbacks: int = 3,
        most_dumps: int = 10,
    ) -> None:
        for name, action in (("not_finite", not_finite), ("spike", spike)):
            if action not in (*_ACTIONS, *([None] if name == "spike" else [])):
                raise ConfigError(
                    f"train.faults.{name}={action!r} was asked for. Choose one of "
                    f"{', '.join(_ACTIONS)}{', or null' if name == 'spike' else ''}."
                )
        counts_fit = min(most_in_row, window) >= 1 and min(most_rollbacks, most_dumps) >= 0
        if spike_factor <= 1 or not 0 < lower_factor < 1 or not counts_fit:
            raise ConfigError(
                f"train.faults was asked for with spike_factor={spike_factor}, window={window}, "
                f"lower_factor={lower_factor}, most_in_row={most_in_row}, "
                f"most_rollbacks={most_rollbacks}, most_dumps={most_dumps}. Use a spike_factor "
                "above 1, a lower_factor between 0 and 1, and counts from 1 (rollbacks and dumps: "
                "0) on."
            )
        self.not_finite: Action = not_finite
        self.spike: Action | None = spike
        self.spike_factor = spike_factor
        self.lower_factor = lower_factor
        self.most_in_row = most_in_row
        self.most_rollbacks = most_rollbacks
        self.most_dumps = most_dumps
        self.lr_factor = 1.0
        self.counts = {"not_finite": 0, "spike": 0, "rolled_back": 0, "lowered": 0}
        self.newest: list[Fault] = []
        self._norms: deque[float] = deque(maxlen=window)
        self._in_row = 0

    @property
    def limit(self) -> float:
        """Gradient norm from which an update is a spike; infinite while there is no history."""
        if self.spike is None or len(self._norms) < _LEAST_HISTORY:
            return math.inf
        return self.spike_factor * statistics.median(self._norms)

    def blocks(self, grad_norm: Tensor) -> Tensor:
        """1 where an update must not happen, else 0, float32 0-d; asks no device.

        Args:
            grad_norm: of the whole step, 0-d.
        """
        return (~(torch.isfinite(grad_norm) & (grad_norm <= self.limit))).float()

    def judge(self, outcomes: Sequence[StepOutcome]) -> list[Fault]:
        """What went wrong in the updates since the last look; counts them.

        Raises:
            TrainingError: the policy is to stop, or there were too many.
        """
        limit = self.limit
        self.newest = faults = []
        for outcome in outcomes:
            fault = self._judge(outcome, limit)
            self._in_row = 0 if fault is None else self._in_row + 1
            if fault is None:
                self._norms.append(outcome.grad_norm)
                continue
            faults.append(fault)
            self.counts[fault.kind] += 1
            self._refuse_to_go_on(fault)
        if any(fault.action == "lower" for fault in faults):
            self.lr_factor *= self.lower_factor
            self.counts["lowered"] += 1
        return faults

    def roll_back(self, fault: Fault) -> None:
        """Count a return to the last checkpoint.

        Raises:
            TrainingError: it is one too many.
        """
        if self.counts["rolled_back"] >= self.most_rollbacks:
            raise TrainingError(
                f"{self.most_rollbacks} times the last checkpoint came back, and again {fault} "
                "Look at these samples, lower the learning rate, or raise "
                "train.faults.most_rollbacks."
            )
        self.counts["rolled_back"] += 1
        self._in_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain values that ``load_state_dict`` takes."""
        return {
            "lr_factor": self.lr_factor,
            "counts": dict(self.counts),
            "norms": list(self._norms),
            "in_row": self._in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.lr_factor = float(state["lr_factor"])
        self.counts = {name: int(state["counts"].get(name, 0)) for name in self.counts}
        self._norms.clear()
        self._norms.extend(state["norms"])
        self._in_row = int(state["in_row"])

    def _judge(self, outcome: StepOutcome, limit: float) -> Fault | None:
        if not outcome.is_finite:
            return Fault(outcome=outcome, kind="not_finite", action=self.not_finite, limit=limit)
        if self.spike is not None and outcome.grad_norm > limit:
            return Fault(outcome=outcome, kind="spike", action=self.spike, limit=limit)
        return None

    def _refuse_to_go_on(self, fault: Fault) -> None:
        if fault.action != "stop" and self._in_row < self.most_in_row:
            return
        many = f" It is the {self._in_row}th bad update in a row." if self._in_row > 1 else ""
        raise TrainingError(
            f"An update went wrong at {fault}{many} Look at these samples, lower the learning "
            "rate, or set train.faults; the same command goes on from the last checkpoint."
        )


def tell_samples(batches: Sequence[Batch]) -> str:
    """Where the samples of batches come from and what they are called."""
    keys = [key for batch in batches for key in batch.keys if key]
    sources = list(dict.fromkeys(s for batch in batches for s in batch.sources if s))
    rest = f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
    return f"Its samples come from {', '.join(sources)}: {', '.join(keys[:_MAX_NAMED])}{rest}."
