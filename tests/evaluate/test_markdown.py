"""A report to paste: a table, counts, some wrong answers, and nothing that turns into markup."""

import re

import pytest

from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.markdown import render_markdown
from mllm_npu.evaluate.runner import TaskResult


def render(fakes, records, *, figures=(), **facts):
    details = [figure.to_json() for figure in figures]
    counts = {"num_unread": 0, "num_refused": 0, "num_shots_dropped": 0, "num": len(records)}
    task = {"name": "echo", "title": "Says it again", "citation": "none", **counts, **facts}
    result = TaskResult(task=fakes.EchoTask([]), records=tuple(records))
    report = {"model": "my_model", "details": details, "tasks": [task]}
    return render_markdown(report, [result])


def unescape(text):
    return re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), text)


def test_a_table_has_every_figure_in_as_far_as_its_level(fakes):
    figures = [
        Figure(name="exam", title="", value=0.5, num=4, standard_error=0.25, interval=(0.1, 0.9)),
        Figure(name="exam/maths", title="", value=120.5, level=1),
    ]
    lines = render(fakes, [fakes.make_record("a", "a")], figures=figures).splitlines()
    assert unescape(lines[0]) == "# my_model"
    assert lines[2:6] == [
        "| figure | value | ± | 95 % | n |",
        "|---|---:|---:|---|---:|",
        "| exam | 0.5 | 0.25 | 0.1 – 0.9 | 4 |",
        "| &nbsp;&nbsp;&nbsp;&nbsp;exam/maths | 120 |  |  |  |",
    ]


def test_counts_are_told_where_there_are_some(fakes):
    records = [fakes.make_record("a", "a")]
    assert "\n1 examples.\n" in render(fakes, records)
    told = render(fakes, records, num_unread=2, num_refused=3, num_shots_dropped=4)
    assert (
        "1 examples; 2 replies without a form of an answer; 3 questions refused; "
        "4 solved examples left out for length." in told
    )


def test_some_wrong_answers_are_shown(fakes):
    records = [fakes.make_record("a", said, n) for n, said in enumerate(["a", *"bcde"])]
    lines = [line for line in render(fakes, records).splitlines() if line.startswith("- ")]
    assert lines == [
        f"- **e{n}**: right is a, understood {said}; the reply was: {said}"
        for n, said in ((1, "b"), (2, "c"), (3, "d"))
    ]


@pytest.mark.parametrize(
    "said",
    [
        *("# title", "**bold**", "_x_ `code`", "[link](http://x)", "<script>", "a | b", "&lt;"),
        *("~~gone~~", "$x$", "\\*", "&#35; __init__"),
    ],
)
def test_what_a_model_says_is_no_markup_and_can_be_read_back(fakes, said):
    [line] = [
        x for x in render(fakes, [fakes.make_record("a", said)]).splitlines() if x[:2] == "- "
    ]
    written = line.split("the reply was: ")[1]
    assert unescape(written) == said
    assert not set("\\`*_[]<>|~$") & set(written)
    assert re.fullmatch(r"(?:[^&#]|&#\d+;)*", written)


def test_what_a_model_says_is_one_line_and_not_endless(fakes):
    told = render(fakes, [fakes.make_record("a", "x\n\n# y\n" + "z" * 1000)])
    [line] = [line for line in told.splitlines() if line.startswith("- ")]
    assert "x &#35; y z" in line
    assert line.endswith("z…")
    assert len(line) < 700
