from rich.console import Console

from mllm_npu.evaluate.figure import Figure, Target
from mllm_npu.evaluate.table import figures_table


def show(*figures):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(figures_table({"details": [figure.to_json() for figure in figures]}))
    return capture.get().splitlines()


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
