"""Set two evaluations side by side, example by example: what differs, and is it just chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.errors import DataError
from mllm_npu.evaluate.compare_records import Evaluation, RecordLine, read_evaluation
from mllm_npu.evaluate.compare_statistics import Difference, compare_scores

Pair = tuple[RecordLine, RecordLine]
"""The same example, as A and as B answered it."""

_CHANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """A group of a task's examples.

    Args:
        name: of the group.
        level: 1 for the widest groups.
        num: examples.
        value_a: mean score of A.
        value_b: mean score of B.
    """

    name: str
    level: int
    num: int
    value_a: float
    value_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """Both evaluations on the examples of a task that both have.

    Args:
        task: its name.
        pairs: those examples, in the order of A.
        num_only_a: examples that only A has.
        num_only_b: examples that only B has.
        value_a: mean score of A.
        value_b: mean score of B.
        difference: of B minus A.
        figure_a: the number of the task in the report of A, over all of its examples.
        figure_b: the same of B.
        groups: means by group.
    """

    task: str
    pairs: Sequence[Pair]
    num_only_a: int
    num_only_b: int
    value_a: float
    value_b: float
    difference: Difference
    figure_a: float | None
    figure_b: float | None
    groups: Sequence[GroupComparison]

    @property
    def differs(self) -> bool:
        """Whether the difference is more than chance explains at the 5 % level."""
        return self.difference.p_value < _CHANCE

    def flips(self, *, higher: bool) -> list[Pair]:
        """Examples on which B scores higher, or lower; the largest differences first."""
        sign = 1 if higher else -1
        found = [(a, b) for a, b in self.pairs if sign * (b.score - a.score) > 0]
        return sorted(found, key=lambda pair: -abs(pair[1].score - pair[0].score))

    def count(self) -> dict[str, int]:
        """What to know about the pairs, in numbers."""
        return {
            "num": len(self.pairs),
            "num_only_a": self.num_only_a,
            "num_only_b": self.num_only_b,
            "num_asked_otherwise": sum(_asked(a) != _asked(b) for a, b in self.pairs),
            "num_other_answer": sum(a.answer != b.answer for a, b in self.pairs),
            "num_refused_a": sum(a.refused is not None for a, _ in self.pairs),
            "num_refused_b": sum(b.refused is not None for _, b in self.pairs),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = self.difference
        return {
            "task": self.task,
            **self.count(),
            "value_a": self.value_a,
            "value_b": self.value_b,
            "difference": found.mean,
            "interval": list(found.interval),
            "p_value": found.p_value,
            "test": found.test,
            "num_higher": found.num_higher,
            "num_lower": found.num_lower,
            "figure_a": self.figure_a,
            "figure_b": self.figure_b,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two evaluations side by side.

    Args:
        a: the one.
        b: the other.
        tasks: that both have, in the order of A.
        only_a: names of tasks that only A has.
        only_b: names of tasks that only B has.
    """

    a: Evaluation
    b: Evaluation
    tasks: Sequence[TaskComparison]
    only_a: Sequence[str]
    only_b: Sequence[str]

    def names(self) -> tuple[str, str]:
        """What to call the two: their models, or their folders where those are called alike."""
        if self.a.name != self.b.name:
            return self.a.name, self.b.name
        return str(self.a.folder), str(self.b.folder)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": {"name": self.a.name, "folder": str(self.a.folder)},
            "b": {"name": self.b.name, "folder": str(self.b.folder)},
            "tasks": [task.to_json() for task in self.tasks],
            "tasks_only_a": list(self.only_a),
            "tasks_only_b": list(self.only_b),
        }


def compare_evaluations(path_a: Path, path_b: Path) -> Comparison:
    """Read two evaluations and compare them on the examples both have.

    Args:
        path_a: folder of an evaluation or a run.
        path_b: the same of another one.

    Raises:
        DataError: one cannot be read, or they have no example in common.
    """
    a, b = read_evaluation(path_a), read_evaluation(path_b)
    tasks = [
        _compare_task(task, a, b)
        for task, lines in a.tasks.items()
        if lines.keys() & b.tasks.get(task, {}).keys()
    ]
    if not tasks:
        raise DataError(
            f"{a.folder} has the tasks {list(a.tasks)} and {b.folder} {list(b.tasks)}, with no "
            "example in common. Evaluate both by the same tasks."
        )
    shared = {task.task for task in tasks}
    return Comparison(
        a=a,
        b=b,
        tasks=tasks,
        only_a=[task for task in a.tasks if task not in shared],
        only_b=[task for task in b.tasks if task not in shared],
    )


def _compare_task(task: str, a: Evaluation, b: Evaluation) -> TaskComparison:
    lines_a, lines_b = a.tasks[task], b.tasks[task]
    pairs = [(line, lines_b[name]) for name, line in lines_a.items() if name in lines_b]
    value_a, value_b = _means(pairs)
    return TaskComparison(
        task=task,
        pairs=pairs,
        num_only_a=len(lines_a) - len(pairs),
        num_only_b=len(lines_b) - len(pairs),
        value_a=value_a,
        value_b=value_b,
        difference=compare_scores([a.score for a, _ in pairs], [b.score for _, b in pairs]),
        figure_a=a.figures.get(task),
        figure_b=b.figures.get(task),
        groups=_compare_groups(pairs),
    )


def _compare_groups(pairs: Sequence[Pair]) -> list[GroupComparison]:
    """Groups below each other, as their names are ordered."""
    found: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        groups = pair[0].groups
        for level in range(1, len(groups) + 1):
            found.setdefault(groups[:level], []).append(pair)
    compared = []
    for path, own in sorted(found.items()):
        value_a, value_b = _means(own)
        above = path[-2] if len(path) > 1 else ""
        compared.append(
            GroupComparison(
                name=path[-1].removeprefix(f"{above}/").replace("_", " "),
                level=len(path),
                num=len(own),
                value_a=value_a,
                value_b=value_b,
            )
        )
    return compared


def _means(pairs: Sequence[Pair]) -> tuple[float, float]:
    num = len(pairs)
    return (
        round(sum(a.score for a, _ in pairs) / num, 6),
        round(sum(b.score for _, b in pairs) / num, 6),
    )


def _asked(line: RecordLine) -> tuple[tuple[str, ...], int]:
    return line.question, line.num_shots


def describe_counts(counts: Mapping[str, int]) -> list[str]:
    """What `TaskComparison.count` found, in words; nothing where all is as it should be."""
    words = {
        "num_only_a": "examples are in A only and left out",
        "num_only_b": "examples are in B only and left out",
        "num_asked_otherwise": "are asked in other words or with other solved examples",
        "num_other_answer": "have another right answer: the data differ",
        "num_refused_a": "were refused by A and count as wrong",
        "num_refused_b": "were refused by B and count as wrong",
    }
    return [f"{counts[key]} {said}" for key, said in words.items() if counts[key]]
