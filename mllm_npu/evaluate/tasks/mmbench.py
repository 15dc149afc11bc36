"""MMBench: multiple choice over one picture; a question counts if right in every rotation."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mllm_npu.evaluate.benchmark_files import check_names
from mllm_npu.evaluate.choices import LETTERS, Ask, likeliest, list_choices, read_letter
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.hidden_answers import answered_figure
from mllm_npu.evaluate.mmbench_questions import MMBenchQuestion, read_mmbench
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

_LAST_WORDS = 5
_COLUMNS = ("index", "question", "hint", *"ABCDE", "prediction", "category", "l2-category")


class MMBench(Task):
    """Asks a question once for each rotation of its choices (circular evaluation).

    Published files have the rotations as rows of their own, numbered a million apart; where a
    question has one row only, its rotations are made here.

    A written reply is read by the rules of the official toolkit: the one letter that stands among
    its last five words, or the one choice that a short reply repeats. Where both fail the official
    evaluation asks ChatGPT; here the first letter that is named as the answer counts.

    The test split is published without answers: its figure is the share of replies that can be
    read. The submission is the table that the official server takes, tab-separated.

    Args:
        data: folder, zip or file in the published layout, or a saved data set.
        options: how replies are made.
        split: "dev" or "test".
        language: "en" or "cn".
        by: "generation" of a reply, or "likelihood" of the letters.
        frame: see `mllm_npu.evaluate.prompt.Frame`.

    Source: README of github.com/open-compass/MMBench; vlmeval/dataset/image_mcq.py (prompt),
        vlmeval/dataset/utils/multiple_choice.py (circular evaluation, averages) and
        vlmeval/utils/matching_util.py (reading of replies) of github.com/open-compass/VLMEvalKit.
    """

    name = "mmbench"
    title = "MMBench, right in every rotation of the choices"
    citation = (
        "Liu et al. 2023, MMBench: Is Your Multi-modal Model an All-around Player?, "
        "arXiv:2307.06281. Data: CC BY 4.0."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        options: GenerationOptions,
        split: Literal["dev", "test"] = "dev",
        language: Literal["en", "cn"] = "en",
        by: Ask = "generation",
        frame: Frame = "chat",
    ) -> None:
        self.data, self.options, self.split, self.language = Path(data), options, split, language
        self.by, self.frame = by, frame

    def examples(self) -> Sequence[Example]:
        """All rotations of all questions, those of a question side by side."""
        questions = read_mmbench(self.data, self.split, self.language)
        made = [self._example(question) for question in questions]
        check_names([example.name for example in made], str(self.data))
        return made

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right choice in this rotation."""
        return float(bool(example.answer) and self.explain(example, reply) == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter of the choice; None where the reply names none."""
        if reply.choices:
            return LETTERS[likeliest(reply)]
        facts = example.facts
        return read_choice(reply.text, [facts[letter] for letter in LETTERS if letter in facts])

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all questions, then by ability of the second and the third level."""
        if not any(record.example.answer for record in records):
            title = f"MMBench {self.split} {self.language}"
            return [answered_figure(records, name=self.name, title=title, citation=self.citation)]
        return grouped_figures(
            _merge_rotations(records), name=self.name, title=self.title, citation=self.citation
        )

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Replies with their questions, as the official server takes them."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, _COLUMNS, restval="", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for record in records:
            example = record.example
            shown = {key: value for key, value in example.facts.items() if key in _COLUMNS}
            said = (record.understood or "") if record.reply.choices else record.reply.text
            writer.writerow(
                {
                    **shown,
                    "index": example.name,
                    "prediction": said,
                    "l2-category": example.groups[0],
                    "category": example.groups[1],
                }
            )
        return {f"mmbench_{self.split}_{self.language}.tsv": table.getvalue()}

    def _example(self, question: MMBenchQuestion) -> Example:
        hint = f"Hint: {question.hint}\n" if question.hint else ""
        prompt = (
            f"{hint}Question: {question.text}\nOptions:\n{list_choices(question.choices)}"
            "Please select the correct answer from the options above. \n"
        )
        letters = tuple(LETTERS[: len(question.choices)])
        return Example(
            name=str(question.number),
            conversation=put_question([question.picture, prompt], frame=self.frame),
            answer=question.answer,
            options=self.options,
            choices=letters if self.by == "likelihood" else (),
            groups=(question.ability, question.leaf),
            facts={
                "question_id": question.name,
                "question": question.text,
                "hint": question.hint,
                **dict(zip(letters, question.choices, strict=True)),
            },
        )


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a written reply names or repeats; None where it does neither.

    Args:
        text: the reply.
        choices: their texts.
    """
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    named = [letter for letter in LETTERS[: len(choices)] if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _LAST_WORDS:
        return named[0]
    repeated = [
        letter
        for letter, choice in zip(LETTERS, choices, strict=False)
        if choice.lower() in text.lower()
    ]
    if len(repeated) == 1 and len(text) <= 2 * sum(map(len, choices)):
        return repeated[0]
    return read_letter(text, len(choices))


def _merge_rotations(records: Sequence[Record]) -> list[Record]:
    """One record for each question: right if all its rotations are, unread if one of them is."""
    merged: dict[str, Record] = {}
    for record in records:
        name = record.example.facts["question_id"]
        before = merged.get(name)
        if before is None:
            merged[name] = record
        else:
            can_read = before.understood is not None and record.understood is not None
            merged[name] = replace(
                before,
                score=min(before.score, record.score),
                understood=record.understood if can_read else None,
            )
    return list(merged.values())
