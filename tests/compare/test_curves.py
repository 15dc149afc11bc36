"""Geometry of the charts stands for the errors, and stays inside the chart."""

import math

import pytest

from mllm_npu.compare.comparison import Row
from mllm_npu.compare.curves import HEIGHT, WIDTH, draw_errors
from mllm_npu.compare.difference import Difference
from mllm_npu.compare.recording import Event


def row(module, relative, bound=1e-3):
    problem = "shape" if math.isinf(relative) else ""
    return Row(
        event=Event(kind="output", call=0, module=module, count=1),
        dtype="float32",
        shape=(1,),
        difference=Difference(relative=relative, problem=problem),
        bound=bound,
    )


def draw(*rows, first=None):
    return draw_errors(rows, describe=lambda row: "output", first=first)


def test_nothing_is_no_chart():
    assert draw() is None


def test_heights_are_powers_of_ten():
    chart = draw(row("a", 1e-6), row("a", 1e-5), row("b", 1e-4))
    first, second, third = (dot.y for dot in chart.dots)
    assert first - second == pytest.approx(second - third)
    assert first > second > third
    assert chart.dots[1].x - chart.dots[0].x == chart.dots[2].x - chart.dots[1].x
    levels = {level.label: level.at for level in chart.levels}
    assert levels["1e-6"] == pytest.approx(first)


def test_all_stays_inside():
    chart = draw(row("a", 0.0), row("b", math.inf), row("c", 1e9), row("d", 0.5, bound=0.0))
    for dot in chart.dots:
        assert 0 <= dot.x <= WIDTH
        assert 0 <= dot.y <= HEIGHT
    assert [dot.is_over for dot in chart.dots] == [False, True, True, True]
    for line in (chart.line, chart.bound):
        assert len(line.split()) == 4
        assert "nan" not in line
        assert "inf" not in line


def test_a_single_tensor_is_a_chart():
    assert len(draw(row("a", 1e-3)).dots) == 1


def test_parts_are_named_where_they_begin():
    chart = draw(row("vision.a", 0), row("vision.b", 0), row("language.a", 0))
    assert [part.label for part in chart.parts] == ["vision", "language"]
    assert chart.parts[0].at == chart.dots[0].x
    assert chart.parts[0].end == chart.dots[1].x


def test_of_many_parts_the_widest_are_named():
    rows = [row(f"p{number}", 0) for number in range(40)] + [row("wide", 0)] * 5
    labels = [part.label for part in draw(*rows).parts]
    assert len(labels) < 20
    assert "wide" in labels


def test_the_first_divergence_is_marked():
    rows = [row("a", 0), row("b", 1.0)]
    chart = draw(*rows, first=rows[1])
    assert chart.first.at == chart.dots[1].x
    assert draw(*rows, first=row("b", 1.0)).first is None


def test_titles_say_what_is_pointed_at():
    chart = draw(row("a.b", 2e-5), row("a.c", math.inf))
    assert chart.dots[0].title == "a.b, output: 2.0e-05, bound 1.0e-03"
    assert chart.dots[1].title == "a.c, output: shape"
