"""BIG-Bench Hard: 27 sets of reasoning questions, answered step by step after worked examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.figure import Figure, mean_figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

TASKS: Mapping[str, tuple[str, ...]] = {
    "NLP": (
        "causal_judgement",
        "date_understanding",
        "disambiguation_qa",
        "formal_fallacies",
        "hyperbaton",
        "movie_recommendation",
        "penguins_in_a_table",
        "reasoning_about_colored_objects",
        "ruin_names",
        "salient_translation_error_detection",
        "snarks",
        "sports_understanding",
    ),
    "algorithmic": (
        "boolean_expressions",
        "dyck_languages",
        "geometric_shapes",
        "logical_deduction",
        "multistep_arithmetic_two",
        "navigate",
        "object_counting",
        "temporal_sequences",
        "tracking_shuffled_objects",
        "web_of_lies",
        "word_sorting",
    ),
}
"""The 23 tasks of the paper, by kind."""

SETS: Mapping[str, tuple[str, ...]] = {
    task: tuple(f"{task}_{number}_objects" for number in ("three", "five", "seven"))
    for task in ("logical_deduction", "tracking_shuffled_objects")
}
"""Tasks that are several sets; every other is one set of its own name."""

_LAYOUT = """\
bbh/
├── bbh/boolean_expressions.json          27 files, one a set (in some copies the folder is data)
└── cot-prompts/boolean_expressions.txt   worked examples (in some copies lib_prompt)
It is github.com/suzgunmirac/BIG-Bench-Hard."""

_CUE = "A: Let's think step by step."
_ANSWER = "the answer is"
_GAP = "\n\n"


class BBH(Task):
    """Thinks step by step and ends with "the answer is"; what follows must be the target exactly.

    The main number is the mean of 23 tasks, two of which are the mean of three sets.

    Args:
        data: folder or zip of the published files.
        shots: worked examples before each question.
        max_new_tokens: of a reply; it stands for that of the options, since thoughts are long.
        frame: see `Frame`.
        options: how a reply is written otherwise.

    Source: data, prompts and their form as published in suzgunmirac/BIG-Bench-Hard (``bbh``,
    ``cot-prompts``, ``code-davinci-002-outputs``); exact match, kinds and averages as in the paper.
    """

    name = "bbh"
    citation = (
        "Suzgun et al., Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them, "
        "Findings of ACL 2023, arXiv 2210.09261. Data: github.com/suzgunmirac/BIG-Bench-Hard, "
        "MIT licence."
    )

    def __init__(
        self,
        *,
        data: Path,
        shots: int = 3,
        max_new_tokens: int = 1024,
        frame: Frame = "plain",
        options: GenerationOptions,
    ) -> None:
        self.data, self.shots, self.frame = data, shots, frame
        self.title = f"BIG-Bench Hard, chain of thought, {shots} shots"
        # No worked example has an empty line in it, but a chat model's own thoughts may.
        end = _GAP if frame == "plain" else f"{_GAP}Q:"
        self._options = replace(
            options, max_new_tokens=max_new_tokens, images="forbid", stop=(*options.stop, end)
        )

    def examples(self) -> Sequence[Example]:
        """All questions, set by set."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        found = [
            example
            for kind, tasks in TASKS.items()
            for task in tasks
            for part in SETS.get(task, (task,))
            for example in self._read_set(files, part, (kind, task))
        ]
        check_names([example.name for example in found], str(files.path))
        return found

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the target and nothing else."""
        return float(self.explain(example, reply) == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """What follows the last "the answer is" in its line, without a full stop; None without."""
        _, cue, rest = re.sub(_ANSWER, _ANSWER, reply.text, flags=re.IGNORECASE).rpartition(_ANSWER)
        line = rest.lstrip(": ").partition("\n")[0].strip().removesuffix(".").rstrip()
        return line if cue and line else None

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all tasks, then of each kind, task, and set where a task has several."""
        figures: list[Figure] = []
        for figure in grouped_figures(
            records,
            name=self.name,
            title=self.title,
            citation=self.citation,
            average="macro",
            inner="macro",
        ):
            figures.append(figure)
            figures += self._set_figures(records, figure.title)
        return figures

    def _set_figures(self, records: Sequence[Record], task: str) -> list[Figure]:
        found = []
        for part in SETS.get(task, ()):
            own = [record for record in records if record.example.facts["set"] == part]
            if own:
                found.append(
                    mean_figure(
                        name=f"{self.name}/{part}",
                        title=part,
                        values=[record.score for record in own],
                        num_unread=count_unread(own),
                        level=3,
                    )
                )
        return found

    def _read_set(self, files: BenchmarkFiles, name: str, groups: tuple[str, str]) -> list[Example]:
        intro, shots = self._read_prompt(files, name)
        return [
            Example(
                name=f"{name}/{number}",
                conversation=put_question(
                    [f"Q: {question}\n{_CUE}"], frame=self.frame, shots=shots, intro=intro
                ),
                answer=target,
                options=self._options,
                num_shots=len(shots),
                first_shot=1,
                groups=groups,
                facts={"set": name},
            )
            for number, (question, target) in enumerate(_read_questions(files, name))
        ]

    def _read_prompt(self, files: BenchmarkFiles, name: str) -> tuple[str, list[str]]:
        folder = "cot-prompts" if files.has(f"cot-prompts/{name}.txt") else "lib_prompt"
        path = files.find_one(f"{folder}/{name}.txt")
        text = files.read_text(path).replace("\r\n", "\n").strip()
        # The original begins with a line that marks test data, and a rule.
        intro, *shots = re.split(r"\n\n(?=Q: )", text.rpartition("-----\n")[2])
        if not intro.strip() or not all(_CUE in shot for shot in shots):
            raise DataError(
                f"{path} in {files.path} is no task description with worked examples, each with "
                f"{_CUE!r}. Download it again."
            )
        if not 0 <= self.shots <= len(shots):
            raise ConfigError(
                f"shots={self.shots} was asked for, {path} has {len(shots)} worked examples. "
                f"Use a number from 0 to {len(shots)}."
            )
        return f"{intro}{_GAP}", [f"{shot}{_GAP}" for shot in shots[: self.shots]]


def _read_questions(files: BenchmarkFiles, name: str) -> list[tuple[str, str]]:
    folder = "bbh" if files.has(f"bbh/{name}.json") else "data"
    path = files.find_one(f"{folder}/{name}.json")
    content = files.read_json(path)
    rows = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(f'{path} in {files.path} has no "examples". Download it again.')
    found = []
    for number, row in enumerate(rows):
        pair = (row.get("input"), row.get("target")) if isinstance(row, dict) else ()
        if not pair or not all(isinstance(text, str) and text.strip() for text in pair):
            raise DataError(
                f"{path} in {files.path}: example {number} has no input or no target, both texts. "
                "Download it again."
            )
        found.append((str(pair[0]), str(pair[1]).strip()))
    return found
