import pytest

from mllm_npu.plan.pictures import goodput_picture, stack, time_line


def test_pieces_stand_one_behind_the_other():
    pieces = stack({"a": 1.0, "b": 3.0, "nothing": 0.0}, 8.0)
    assert [(piece.name, piece.left, piece.width) for piece in pieces] == [
        ("b", 0.0, 37.5),
        ("a", 37.5, 12.5),
    ]
    assert pieces[0].colour != pieces[1].colour


def test_what_is_larger_than_the_bar_fills_it():
    pieces = stack({"a": 30.0, "b": 10.0}, 20.0)
    assert pieces[-1].left + pieces[-1].width == pytest.approx(100)
    assert stack({}, 0.0) == []


def test_a_step_goes_from_left_to_right(make_plan):
    step = make_plan().outcome.step
    busy, exchanges = time_line(step)
    assert [piece.name for piece in busy] == [
        "forward: language model",
        "forward: vision encoder",
        "backward: language model",
    ]
    assert busy[0].left == 0
    assert busy[0].colour == busy[2].colour != busy[1].colour
    assert busy[-1].left + busy[-1].width == pytest.approx(100)
    assert [piece.left for piece in exchanges] == [0]
    assert 0 < exchanges[0].width < busy[0].width
    # What is waited for stands between a part and the next one.
    assert busy[1].left > busy[0].width


def test_curves_lie_inside_their_axes(make_plan):
    picture = goodput_picture(make_plan().goodput)
    assert [curve.name for curve in picture.curves] == ["8 ranks", "1000 ranks"]
    for curve in picture.curves:
        for pair in curve.points.split():
            x, y = map(float, pair.split(","))
            assert 60 <= x <= 1000
            assert 15 <= y <= 260
        assert f"{curve.best[0]},{curve.best[1]}" in curve.points
    assert [tick.text for tick in picture.rows][-1] == "100.0%"
    assert picture.columns
