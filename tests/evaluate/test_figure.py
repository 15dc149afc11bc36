import pytest

from mllm_npu.evaluate.figure import Figure, Target, format_value, mean_figure
from mllm_npu.evaluate.runner import figure_of

LEAST = Target(limit=0.75, side="least")
MOST = Target(limit=3, side="most")


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [(LEAST, 0.75, True), (LEAST, 0.74, False), (MOST, 3, True), (MOST, 3.01, False)],
)
def test_a_target_is_met_on_its_side(target, value, met):
    assert target.is_met(value) is met
    assert Figure(name="a", title="b", value=value, target=target).to_json()["met"] is met


def test_targets_are_readable():
    assert (str(LEAST), str(MOST)) == ("≥ 0.75", "≤ 3")


def test_a_figure_without_target_is_neither_met_nor_missed():
    plain = Figure(name="a", title="b", value=1.0).to_json()
    assert (plain["met"], plain["target"], plain["num"]) == (None, "", None)


def test_a_task_becomes_a_figure(fakes):
    result = fakes.make_result(("a", "a"), ("b", "b"), ("c", "c"), ("d", "x"))
    figure = figure_of(result, {"echo": LEAST})
    assert (figure.name, figure.value, figure.num, figure.target) == ("echo", 0.75, 4, LEAST)
    assert figure.standard_error == pytest.approx(0.25)
    assert figure.citation == "none"


def test_a_mean_without_target():
    figure = mean_figure(name="a", title="b", values=[0.1, 0.3])
    assert (figure.value, figure.target) == (0.2, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99167, "0.9917"),
        (0.5, "0.5"),
        (1.0, "1"),
        (0, "0"),
        (166.4, "166"),
        (3, "3"),
        (44.25, "44.2"),
    ],
)
def test_numbers_are_short(value, text):
    assert format_value(value) == text
