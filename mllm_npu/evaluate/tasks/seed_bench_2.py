"""SEED-Bench-2: 27 kinds of questions, from one picture to drawing, chosen by likelihood."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import check_names
from mllm_npu.evaluate.choices import LETTERS, Ask, Norm, chosen_letter, list_choices
from mllm_npu.evaluate.encoder_features import EncoderFeatures
from mllm_npu.evaluate.feature_statistics import Rows
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.interleaved import weave
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.seed_bench_questions import LEVELS, Level, SeedQuestion, read_questions
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Role, Text, Turn
from mllm_npu.processing.raster import Picture

_NUM_CHOICES = 4
_MARK = r"(<img>|\[img\])"
_LETTER_ONLY = "Answer with the option's letter from the given choices directly."
_DRAW = "Generate an image: {caption}"
_BEFORE_CAPTION = "description:"
_PARTS: dict[Level, str] = {"L1": "L1", "L2": "Part-2", "L3": "Part-3"}
"""What a level adds to the one below it."""


class SeedBench2(Task):
    """Chooses one of four texts, or draws the picture that is one of four.

    Text choices are compared by how likely each is after the question, the sum over its tokens
    divided by their number, as the official interfaces do. Pictures stand where the question has
    ``<img>``, else before it; the frames of a video are pictures in order.

    A drawn picture is the choice that it is most like, by the angle between their features. The
    published figures take those of CLIP; here they are those of a vision encoder, averaged over its
    tokens. Where a question wants text and picture, it is right when the text is chosen
    right and the picture that is drawn after the right text is most like its own; text and picture
    are a record each.

    The number of a level is the mean over its dimensions; L2 is over those of L1 and Part-2, L3
    over all.

    Args:
        data: folder, zip or saved data set.
        options: how replies and pictures are made; every drawing has its own seed.
        level: how far to go: L1 pictures then text, L2 also text and pictures in any order, L3 also
            drawing.
        by: "likelihood" of the text choices, or "generation" of the letter of one.
        norm: what a choice's log-probability is divided by.
        frame: see `mllm_npu.evaluate.prompt.Frame`.
        features: of pictures that are compared; L3 needs them.

    Raises:
        ConfigError: level L3 without features.

    Source: paper, sections 3.2 to 3.4 and table 2; SEED-Bench-2/eval.py, its interfaces for LLaVA
        and Qwen-VL, and DATASET.md of github.com/AILab-CVC/SEED-Bench; letters as in LLaVA's
        docs/Evaluation.md; the wording of a drawing as in SEED-X's eval_text2img_seed_x_i.py.
    """

    name = "seed_bench_2"
    title = "SEED-Bench-2"
    citation = (
        "Li et al. 2023, SEED-Bench-2: Benchmarking Multimodal Large Language Models, "
        "arXiv:2311.17092. Data: CC BY-NC 4.0, pictures under the licences of their sources."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        options: GenerationOptions,
        level: Level = "L2",
        by: Ask = "likelihood",
        norm: Norm = "tokens",
        frame: Frame = "chat",
        features: EncoderFeatures | None = None,
    ) -> None:
        if level == "L3" and features is None:
            raise ConfigError(
                "SEED-Bench-2 was asked for level=L3, whose drawn pictures are compared with the "
                "choices, and has no features to compare them by. Give features, or take level=L2."
            )
        self.data, self.options, self.level, self.by = Path(data), options, level, by
        self.norm, self.frame, self.features = norm, frame, features
        self.needs_drawing = level == "L3"
        self._pictures: dict[str, tuple[Picture, ...]] = {}

    def examples(self) -> Sequence[Example]:
        """All questions of the level, in the order of the file."""
        self._pictures.clear()
        levels = LEVELS[: LEVELS.index(self.level) + 1]
        made = [
            example
            for question in read_questions(self.data, levels)
            for example in self._examples(question)
        ]
        check_names([example.name for example in made], str(self.data))
        return made

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right choice."""
        return float(self.explain(example, reply) == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter of the choice; None where the reply names none or has no picture."""
        if example.name not in self._pictures:
            return chosen_letter(reply, _NUM_CHOICES, self.norm)
        if not reply.pictures or self.features is None:
            return None
        drawn, *choices = self.features.pool([reply.pictures[0], *self._pictures[example.name]])
        return LETTERS[int(np.argmax([_cosine(drawn, choice) for choice in choices]))]

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The level, the levels below it, what each adds, its kinds of input, its dimensions."""
        questions = _merge(records)
        main, *parts = self._grouped(questions)
        up_to_2 = [one for one in questions if one.example.groups[0] != _PARTS["L3"]]
        if not up_to_2 or len(up_to_2) == len(questions):
            return [main, *parts]
        second = replace(
            self._grouped(up_to_2)[0],
            name=f"{self.name}/L2",
            title="L2",
            citation="",
            level=1,
        )
        return [main, second, *parts]

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Predictions as the leaderboard takes them, one JSON a line."""
        lines = (
            {
                "question_id": record.example.facts["question_id"],
                "prediction": record.understood or "",
            }
            for record in _merge(records)
        )
        return {"seed_bench_2_results.json": "".join(f"{json.dumps(line)}\n" for line in lines)}

    def _grouped(self, questions: Sequence[Record]) -> list[Figure]:
        return grouped_figures(
            questions,
            name=self.name,
            title=f"{self.title}, {self.level}",
            citation=self.citation,
            average="macro",
            inner="macro",
        )

    def _examples(self, question: SeedQuestion) -> Iterator[Example]:
        if question.texts:
            yield self._choose(question)
        if question.pictures:
            yield self._draw(question)

    def _choose(self, question: SeedQuestion) -> Example:
        asked = _place_pictures(question)
        if self.by == "likelihood":
            return self._example(question, asked, choices=question.texts)
        listed = f"\n{list_choices(question.texts)}{_LETTER_ONLY}"
        if isinstance(asked[-1], str):
            return self._example(question, [*asked[:-1], asked[-1] + listed])
        return self._example(question, [*asked, listed])

    def _draw(self, question: SeedQuestion) -> Example:
        """The picture of a question; the text that belongs to it stands before it as said."""
        asked = question.text
        if question.kind == "draw a caption":
            caption = asked.partition(_BEFORE_CAPTION)[2].strip() or asked
            asked = _DRAW.format(caption=caption)
        example = self._example(question, [*question.shown, asked])
        conversation, name = example.conversation, question.name
        if question.texts:
            name = f"{name}-picture"
            role: Role = "document" if self.frame == "plain" else "assistant"
            right = Text(text=question.texts[LETTERS.index(question.answer)])
            turns = (*conversation.turns, Turn(role=role, parts=(right,)))
            conversation = replace(conversation, turns=turns)
        self._pictures[name] = question.pictures
        seed = self.options.seed
        options = replace(
            self.options,
            images="force",
            seed=None if seed is None else seed + len(self._pictures),
        )
        return replace(example, name=name, conversation=conversation, options=options)

    def _example(
        self,
        question: SeedQuestion,
        asked: Sequence[str | Picture],
        choices: tuple[str, ...] = (),
    ) -> Example:
        return Example(
            name=question.name,
            conversation=put_question(asked, frame=self.frame),
            answer=question.answer,
            options=self.options,
            choices=choices,
            groups=(_PARTS[question.level], question.subpart, question.dimension),
            facts={"question_id": question.name},
        )


def _place_pictures(question: SeedQuestion) -> list[str | Picture]:
    """Pictures at the marks of a question, in order; those without a mark before it."""
    waiting = list(question.shown)

    def take(mark: str) -> Picture:
        if not waiting:
            raise DataError(
                f"{question.where} ({question.name}): more {mark} are in the question than "
                f"pictures, {len(question.shown)}. Download it again."
            )
        return waiting.pop(0)

    woven = weave(question.text, _MARK, take)
    return [*waiting, *woven]


def _cosine(first: Rows, second: Rows) -> float:
    """Of the angle between two vectors, float32 [V]; 0 where one is zero."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else 0.0


def _merge(records: Sequence[Record]) -> list[Record]:
    """One record for each question: text and picture of one question must both be right.

    What was understood is the first choice that is wrong, else the last one.
    """
    merged: dict[str, Record] = {}
    for record in records:
        name = record.example.facts["question_id"]
        before = merged.get(name)
        if before is None or before.score:
            merged[name] = record
    return list(merged.values())
