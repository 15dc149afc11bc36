"""Geometry of the charts stands for the numbers, and stays inside the chart."""

import pytest

from mllm_npu.data.inspect.chart import WIDTH, draw_histogram, draw_sizes
from mllm_npu.data.inspect.distribution import Distribution


def numbers(*values):
    return Distribution({value: values.count(value) for value in values})


def test_heights_stand_for_counts():
    chart = draw_histogram([("a", "#111111", numbers(1, 1, 1, 1, 5, 5, 9))])
    (row,) = chart.rows
    heights = [bar.height for bar in row.bars]
    assert heights == pytest.approx([46, 23, 11.5])
    assert [bar.title for bar in row.bars] == [
        "a: 1, 4 times",
        "a: 5, 2 times",
        "a: 9, 1 times",
    ]


def test_places_stand_for_numbers():
    chart = draw_histogram([("a", "#111111", numbers(0, 10, 20))])
    first, second, third = (bar.x for bar in chart.rows[0].bars)
    assert first == 0
    assert second - first == pytest.approx(third - second)


def test_every_number_is_in_a_bar():
    wide = Distribution({value: value % 7 + 1 for value in range(13, 5000, 3)})
    chart = draw_histogram([("wide", "#111111", wide)])
    counts = [
        int(bar.title.rsplit(", ", 1)[1].removesuffix(" times")) for bar in chart.rows[0].bars
    ]
    assert sum(counts) == wide.num
    assert len(counts) <= 51
    assert "wide: 200 to 399, " in " ".join(bar.title for bar in chart.rows[0].bars)


def test_bars_stay_inside():
    chart = draw_histogram(
        [("a", "#111111", numbers(3, 800, 801)), ("b", "#222222", numbers(77))], low=0, limit=1000
    )
    for row in chart.rows:
        for bar in row.bars:
            assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
            assert 0 <= bar.y <= bar.y + bar.height <= row.y <= chart.height
    assert all(0 <= tick.at <= WIDTH for tick in (*chart.ticks, chart.limit))


def test_rows_share_an_axis():
    chart = draw_histogram([("a", "#111111", numbers(10)), ("b", "#222222", numbers(10, 40))])
    one, other = chart.rows
    assert one.bars[0].x == other.bars[0].x
    assert one.y < other.y
    assert (one.colour, other.colour) == ("#111111", "#222222")


def test_ticks_are_round_numbers_in_order():
    chart = draw_histogram([("a", "#111111", Distribution({3: 1, 997: 1}))], low=0)
    assert [tick.label for tick in chart.ticks] == ["0", "200", "400", "600", "800"]
    large = draw_histogram([("a", "#111111", Distribution({0: 1, 99_000: 1}))])
    assert "20k" in [tick.label for tick in large.ticks]


def test_the_limit_is_on_the_axis_even_if_nothing_reaches_it():
    chart = draw_histogram([("a", "#111111", numbers(10, 20))], limit=100)
    assert chart.limit.label == "100"
    assert max(bar.x for bar in chart.rows[0].bars) < chart.limit.at <= WIDTH
    full = draw_histogram([("a", "#111111", numbers(1000, 1900, 2048, 2048, 2049))], limit=2048)
    bars = {bar.title.split(": ")[1]: bar for bar in full.rows[0].bars}
    at_limit, over = bars["1999 to 2048, 2 times"], bars["2049 to 2098, 1 times"]
    assert at_limit.x < full.limit.at == pytest.approx(over.x)
    assert draw_histogram([("a", "#111111", numbers(10))]).limit is None


def test_nothing_counted_is_no_chart():
    assert draw_histogram([("a", "#111111", Distribution())]) is None
    rows = [("a", "#111111", Distribution()), ("b", "#222222", numbers(4))]
    assert [row.label for row in draw_histogram(rows).rows] == ["b"]


COLOURS = {"a": "#111111", "b": "#222222"}


def test_dots_stand_for_sizes():
    chart = draw_sizes(
        {"a": {(64, 64): 1, (128, 64): 4}, "b": {(256, 512): 9}}, COLOURS, tile_size=128
    )
    dots = {dot.title.split(",")[0]: dot for dot in chart.dots}
    small, wide, tall = dots["a: 64x64"], dots["a: 128x64"], dots["b: 256x512"]
    assert wide.x - small.x == pytest.approx(tall.x - wide.x)  # a doubling each
    assert small.y == wide.y
    assert tall.y < wide.y
    grown = [dot.radius - 2.2 for dot in (small, wide, tall)]  # beyond the smallest dot
    assert grown == pytest.approx([grown[2] / 3, grown[2] * 2 / 3, grown[2]])
    assert (small.colour, tall.colour) == ("#111111", "#222222")
    assert chart.tile_across.at == pytest.approx(wide.x)
    assert wide.y > chart.tile_up.at > tall.y


def test_dots_stay_inside_and_small_ones_lie_on_top():
    sizes = {"a": {(width, 3000 - width): width for width in range(10, 2900, 40)}}
    chart = draw_sizes(sizes, COLOURS, tile_size=448)
    assert all(0 < dot.x < WIDTH and 0 < dot.y < chart.height for dot in chart.dots)
    radii = [dot.radius for dot in chart.dots]
    assert radii == sorted(radii, reverse=True)


def test_many_sizes_become_few_dots_and_none_is_lost():
    sizes = {"a": {(width, height): 1 for width in range(100, 200) for height in range(100, 150)}}
    chart = draw_sizes(sizes, COLOURS, tile_size=448)
    counts = [int(dot.title.rsplit(", ", 1)[1].removesuffix(" times")) for dot in chart.dots]
    assert sum(counts) == 5000
    assert len(counts) < 100


def test_axes_count_by_doublings():
    chart = draw_sizes({"a": {(100, 100): 1, (900, 300): 1}}, COLOURS, tile_size=448)
    assert [tick.label for tick in chart.across] == ["128", "256", "512", "1024"]
    assert [tick.label for tick in chart.up] == ["128", "256"]
    assert chart.height < WIDTH  # a doubling is as long up as across


def test_a_tile_far_from_all_pictures_has_no_line():
    chart = draw_sizes({"a": {(16, 16): 1, (512, 16): 1}}, COLOURS, tile_size=448)
    assert chart.tile_across
    assert chart.tile_up is None


def test_no_pictures_are_no_chart():
    assert draw_sizes({"a": {}}, COLOURS, tile_size=448) is None
