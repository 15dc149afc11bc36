"""The report of benchmark tasks as Markdown, to paste where people talk about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mllm_npu.evaluate.figure import format_value
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record

_EXAMPLES = 3
_LONGEST = 300
_ESCAPES = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_[]<>|#&~$"}


def render_markdown(report: Mapping[str, Any], results: Sequence[TaskResult]) -> str:
    """A table of all figures, what each task is, and some wrong answers.

    Args:
        report: content of report.json.
        results: of the tasks.
    """
    lines = [f"# {_plain(str(report['model']))}", "", *_table(report["details"]), ""]
    for facts, result in zip(report["tasks"], results, strict=True):
        lines += [f"## {_plain(facts['title'])}", "", _plain(facts["citation"]), ""]
        counts = [f"{facts['num']} examples"]
        for key, words in (
            ("num_unread", "replies without a form of an answer"),
            ("num_refused", "questions refused"),
            ("num_shots_dropped", "solved examples left out for length"),
        ):
            if facts[key]:
                counts.append(f"{facts[key]} {words}")
        lines += ["; ".join(counts) + ".", ""]
        wrong = [record for record in result.records if record.score <= 0][:_EXAMPLES]
        lines += [line for record in wrong for line in _wrong(record)]
    return "\n".join(lines).rstrip() + "\n"


def _table(details: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| figure | value | ± | 95 % | n |", "|---|---:|---:|---|---:|"]
    for figure in details:
        error, interval, num = figure["standard_error"], figure["interval"], figure["num"]
        cells = [
            "&nbsp;" * 4 * figure["level"] + _plain(figure["name"]),
            format_value(figure["value"]),
            "" if error is None else format_value(error),
            "" if interval is None else " – ".join(format_value(end) for end in interval),
            "" if num is None else str(num),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _wrong(record: Record) -> list[str]:
    understood = "(nothing)" if record.understood is None else record.understood
    return [
        f"- **{_plain(record.example.name)}**: right is {_plain(record.example.answer)}, "
        f"understood {_plain(understood)}; the reply was: {_plain(record.reply.text)}",
        "",
    ]


def _plain(text: str) -> str:
    """A text on one line that no Markdown or HTML in it changes."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return line.translate(_ESCAPES)
