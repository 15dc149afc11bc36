import pytest
from PIL import Image

from mllm_npu.evaluate.diversity import mean_squared_error, spread_within_classes, to_unit_pixels


def grey(level):
    return Image.new("RGB", (4, 4), (level,) * 3)


def test_pixels_go_from_minus_one_to_one():
    pixels = to_unit_pixels([grey(0), grey(255)])
    assert pixels.shape == (2, 3, 4, 4)
    assert (pixels[0].max(), pixels[1].min()) == (-1.0, 1.0)


def test_the_spread_is_within_classes_only():
    same = [grey(0), grey(0), grey(255), grey(255)]
    assert spread_within_classes(same, [0, 0, 1, 1]) == 0.0
    # Two values at -1 and 1 have a sample standard deviation of sqrt(2).
    assert spread_within_classes(same, [0, 1, 0, 1]) == pytest.approx(2**0.5)


def test_classes_count_alike_however_many_pictures_they_have():
    pictures = [grey(0), grey(255), grey(9), grey(9), grey(9), grey(9)]
    assert spread_within_classes(pictures, [0, 0, 1, 1, 1, 1]) == pytest.approx(2**0.5 / 2)


def test_a_single_picture_has_no_spread():
    assert spread_within_classes([grey(0), grey(9), grey(9)], [0, 1, 1]) == 0.0
    assert spread_within_classes([grey(0), grey(9)], [0, 1]) is None
    assert spread_within_classes([], []) is None


def test_the_squared_error_of_black_and_white_is_four():
    errors = mean_squared_error([grey(0), grey(7)], [grey(255), grey(7)])
    assert errors == [pytest.approx(4.0), 0.0]
