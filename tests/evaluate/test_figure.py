import pytest

from mllm_npu.evaluate.figure import (
    Figure,
    Target,
    format_value,
    mean_figure,
    statistic_figure,
)
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


def test_a_mean_knows_how_sure_it_is():
    figure = mean_figure(name="a", title="b", values=[0.0, 1.0] * 50, num_unread=3, level=2)
    low, high = figure.interval
    assert 0.38 < low < 0.45 < 0.55 < high < 0.62
    plain = figure.to_json()
    assert (plain["interval"], plain["num_unread"], plain["level"]) == ([low, high], 3, 2)
    assert plain["standard_error"] == pytest.approx(0.05025, abs=1e-5)


def test_a_number_that_is_no_mean_is_a_figure_too():
    figure = statistic_figure(
        name="a", title="b", units=[[1, 1], [0, 0, 0]], statistic=lambda units: 10.0 * len(units)
    )
    assert (figure.value, figure.num, figure.standard_error) == (20.0, 2, 0.0)
    assert figure.interval == (20.0, 20.0)
    counted = statistic_figure(
        name="a", title="b", units=[[1], [0]], statistic=lambda units: units[0][0] / 3, num=7
    )
    assert (counted.value, counted.num) == (0.33333, 7)
