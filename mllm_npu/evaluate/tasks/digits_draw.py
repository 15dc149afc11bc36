"""Draw a digit when asked to; a judge trained on real scans says which digit it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.evaluate.judge_digits import DigitJudge
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.evaluate.world_rows import meta_of, read_rows, to_example
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

_NUM_VALID_ROUNDS = 2
"""Each validation wording is drawn so often, so that there are over 200 pictures to choose by."""

_VALID_SEED = 1_000_000
"""Noise of validation drawings starts here, far from that of the held-out ones."""


class DigitDrawing(Task):
    """Draws the digit that is asked for. A reply without a picture is wrong.

    The held-out split asks in wordings that training never has; the validation split, on which
    guidance is chosen, asks in wordings of training.

    Args:
        world: folder of the digits world.
        split: "valid" or "test".
        judge: names the digit of a picture.
        options: how replies are made; every example has its own seed.
    """

    name = "draw_judged"
    title = "Drawn digits judged right, unseen wordings"
    citation = (
        "This project's digits world; judged by an SVM (gamma 0.001, C 10) trained on the real "
        "training scans."
    )

    def __init__(
        self,
        *,
        world: Path,
        split: Literal["valid", "test"],
        judge: DigitJudge,
        options: GenerationOptions,
    ) -> None:
        self.world = Path(world)
        self.split = split
        self.judge = judge
        self.options = options

    def examples(self) -> Sequence[Example]:
        """Every wording with several digits, every drawing with its own noise."""
        if self.split == "test":
            rows, first_seed = read_rows(self.world, "unseen", "test", question="draw"), 0
        else:
            rows = read_rows(self.world, "instruction", "valid", question="draw")
            rows, first_seed = rows * _NUM_VALID_ROUNDS, _VALID_SEED
        return [self._example(row, first_seed + number) for number, row in enumerate(rows)]

    def score(self, example: Example, reply: Reply) -> float:
        """1 if the first picture shows the digit asked for."""
        return float(self.explain(example, reply) == example.answer)

    def explain(self, example: Example, reply: Reply) -> str:
        """The digit the judge sees, or that there is none."""
        if not reply.pictures:
            return "no picture"
        return str(self.judge.judge(reply.pictures[:1])[0])

    def _example(self, row: Row, seed: int) -> Example:
        example = to_example(row, Instruction(), replace(self.options, seed=seed))
        answer = str(meta_of(row)["label"])
        return replace(example, name=f"{row.key}-seed{seed}", answer=answer, truth=None)
