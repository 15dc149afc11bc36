"""Take real steps of a small language model and list its operations, to learn what surrounds them.

Between operations there are modules, autograd and the allocator; what they cost is the time of a
step less that of its operations alone.

Shape letters: T tokens, D width.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.plan.traced_step import Operation, Phase

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")
_STEPS = 15
_WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a model and its pack."""

    width: int
    blocks: int
    tokens: int
    classes: int = 1000


SIZES = (Size(width=64, blocks=2, tokens=128), Size(width=192, blocks=3, tokens=384))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStep:
    """What was seen.

    Args:
        operations: of a step.
        seconds: of each phase, a median.
    """

    operations: Sequence[Operation]
    seconds: Mapping[Phase, float]


class Trial:
    """A language model, its optimizer and a pack of two sequences."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = size
        self.device = device
        self.phase: Phase = "forward"
        self.model = HuggingFaceLanguageModel(
            config={
                "model_type": "llama",
                "hidden_size": size.width,
                "intermediate_size": size.width * 8 // 3,
                "num_hidden_layers": size.blocks,
                "num_attention_heads": 4,
                "vocab_size": size.classes,
            }
        ).to(device)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        ids_T = torch.randint(size.classes, (size.tokens,), generator=generator)
        self.ids_T = ids_T.to(device)
        self.positions_T = torch.arange(size.tokens, device=device)

    def step(self) -> dict[Phase, float]:
        """One step; gives the seconds of its phases, on a processor of its own time."""
        marks = [self._now("forward")]
        embeds_TD = self.model.embed(self.ids_T)
        ends = (self.size.tokens // 2, self.size.tokens)
        states_TD = self.model(embeds_TD, position_ids_T=self.positions_T, sequence_ends=ends)
        loss = F.cross_entropy(self.model.logits(states_TD), self.ids_T)
        marks.append(self._now("backward"))
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(self._now("optimizer"))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        marks.append(self._now("optimizer"))
        spent = (later - sooner for sooner, later in itertools.pairwise(marks))
        return dict(zip(PHASES, spent, strict=True))

    def _now(self, phase: Phase) -> float:
        self.phase = phase
        if self.device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        torch.accelerator.synchronize(self.device)
        return time.perf_counter()


class OperationList(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of a step by name, phase, shapes and dtype; views cost nothing."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trial = trial
        self.seen: Counter[tuple[str, Phase, tuple[tuple[int, ...], ...], str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note an operation that makes or changes values."""
        result = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not getattr(func, "is_view", False) and (inputs or outputs):
            tensors = [*inputs, *outputs]
            shapes = tuple(tuple(tensor.shape) for tensor in tensors)
            dtype = str((outputs or inputs)[0].dtype).removeprefix("torch.")
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.seen[str(func), self.trial.phase, shapes, dtype, size] += 1
        return result

    def operations(self) -> list[Operation]:
        """What was seen; FLOPs are not counted."""
        return [
            Operation(
                name=name,
                part="trial",
                phase=phase,
                shapes=shapes,
                dtype=dtype,
                flops=0.0,
                bytes=size,
                calls=calls,
            )
            for (name, phase, shapes, dtype, size), calls in self.seen.items()
        ]


def take_steps(size: Size, device: torch.device, *, steps: int = _STEPS) -> TrialStep:
    """Train a small model for some steps.

    Args:
        size: of the model.
        device: where.
        steps: that are measured.
    """
    trial = Trial(size, device)
    for _ in range(_WARM_UP):
        trial.step()
    with OperationList(trial) as listed:
        trial.step()
    seen = [trial.step() for _ in range(steps)]
    medians = {phase: statistics.median(one[phase] for one in seen) for phase in PHASES}
    if not all(math.isfinite(value) for value in medians.values()):
        raise RuntimeError(f"times of a trial are {medians}")
    return TrialStep(operations=listed.operations(), seconds=medians)
