from rich.console import Console

from mllm_npu.evaluate.figure import Figure, Target
from mllm_npu.evaluate.table import MOST_ROWS, figures_table, report_notes, unasked_tasks


def show(*figures):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(figures_table({"details": [figure.to_json() for figure in figures]}))
    return capture.get().splitlines()


def task(name, **counts):
    facts = {"num": 9, "num_unread": 0, "num_refused": 0, "num_shots_dropped": 0}
    return {"name": name, "first_refusal": None, **facts, **counts}


def test_a_row_says_value_error_number_and_target():
    target = Target(limit=0.98, side="least")
    _, met, missed = show(
        Figure(name="a", title="A", value=0.99, num=360, standard_error=0.005, target=target),
        Figure(name="b", title="B", value=0.5, num=10, standard_error=0.1, target=target),
    )
    assert met.split() == ["a", "0.99", "0.005", "360", "≥", "0.98", "met"]
    assert missed.split()[-1] == "missed"


def test_what_is_not_known_stays_empty():
    _, row = show(Figure(name="seconds", title="S", value=166.3))
    assert row.split() == ["seconds", "166"]


def test_a_row_stands_in_as_far_as_its_level():
    _, *rows = show(
        *(Figure(name=f"f{level}", title="", value=1.0, level=level) for level in (0, 1, 2))
    )
    assert [len(row) - len(row.lstrip()) for row in rows] == [0, 2, 4]


def many(num):
    levels = [0, 1, *[2] * (num - 3), 1]
    return [
        Figure(name=f"f{number}", title="", value=1.0, level=level)
        for number, level in enumerate(levels)
    ]


def test_of_many_figures_benchmarks_and_categories_are_shown():
    figures = many(MOST_ROWS + 1)
    assert len(show(*figures)) == 1 + 3
    details = [figure.to_json() for figure in figures]
    assert report_notes({"details": details}) == [
        f"{MOST_ROWS - 2} more figures, below categories, are in the report"
    ]


def test_a_table_that_is_not_long_shows_all():
    figures = many(MOST_ROWS)
    assert len(show(*figures)) == 1 + MOST_ROWS
    assert report_notes({"details": [figure.to_json() for figure in figures]}) == []


def test_what_could_not_be_asked_or_read_is_told_where_there_is_some():
    tasks = [
        task("good"),
        task("hard", num_unread=2, num_refused=1, first_refusal="no [room]", num_shots_dropped=7),
    ]
    assert report_notes({"details": [], "tasks": tasks}) == [
        "hard: 2 replies have no form of an answer and count as wrong",
        "hard: 1 questions were refused and count as wrong",
        "hard: 7 solved examples were left out of questions too long with them",
        "hard: the first refusal: no [room]",
    ]


def test_a_task_of_which_nothing_could_be_asked_is_named():
    tasks = [task("a", num_refused=9), task("b", num_refused=8), task("c")]
    assert unasked_tasks({"tasks": tasks}) == ["a"]
    assert unasked_tasks({}) == []
