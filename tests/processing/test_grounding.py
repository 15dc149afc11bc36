"""Boxes come out of text and go back into it; a drawn box is where it should be."""

import random

import pytest
from PIL import Image, ImageChops

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.processing.grounding import (
    COLOURS,
    Box,
    box_text,
    draw_boxes,
    parse_boxes,
    strip_boxes,
    write_boxes,
)

HALF = 0.5 / 224


def span(*numbers: int) -> str:
    return f"<box_start>{''.join(f'<loc-{number}>' for number in numbers)}<box_end>"


def corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def random_boxes(count: int) -> list[Box]:
    rng = random.Random(0)
    boxes = []
    for _ in range(count):
        (x0, x1), (y0, y1) = (sorted((rng.random(), rng.random())) for _ in range(2))
        boxes.append(Box(x0=x0, y0=y0, x1=x1, y1=y1, label=f"thing {rng.randrange(3)}"))
    return boxes


def test_four_locations_are_centre_and_size_over_224():
    (box,) = parse_boxes("a mask" + span(112, 56, 112, 28))
    assert corners(box) == (0.25, 0.1875, 0.75, 0.3125)
    assert box.label == "a mask"


def test_or_corners_where_that_is_asked_for():
    (box,) = parse_boxes(span(56, 28, 168, 112), form="corners")
    assert corners(box) == (0.25, 0.125, 0.75, 0.5)


def test_corners_in_the_wrong_order_are_put_right():
    (box,) = parse_boxes(span(168, 112, 56, 28), form="corners")
    assert corners(box) == (0.25, 0.125, 0.75, 0.5)


def test_a_box_that_reaches_out_is_cut_at_the_edge():
    (box,) = parse_boxes(span(0, 220, 100, 100))
    assert box.x0 == 0
    assert box.y1 == 1


@pytest.mark.parametrize("numbers", [(), (1,), (1, 2, 3), (1, 2, 3, 224), (999, 1, 2, 3)])
def test_too_few_locations_are_no_box(numbers):
    assert parse_boxes(f"a cat {span(*numbers)} and a dog") == []


def test_of_too_many_locations_every_four_are_a_box():
    assert len(parse_boxes(span(1, 2, 3, 4, 5))) == 1
    assert len(parse_boxes(span(1, 2, 3, 4, 5, 6, 7, 8))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "<box_start> <loc-56> <loc-28>, <loc-10>\n<loc-12> <box_end>",
        "<box_start><loc-56>x<loc-28>(<loc-10>)<loc-12><box_end>",
        "<box_start><loc-56><loc-28><loc-10><loc-12>",
        "<box_start><loc-56><loc-28><loc-10><loc-12> the end is missing",
        "<box_end><box_start><loc-56><loc-28><loc-10><loc-12><box_end><box_end>",
    ],
)
def test_text_between_and_missing_ends_are_passed_over(text):
    assert [corners(box) for box in parse_boxes(text)] == [
        corners(box) for box in parse_boxes(span(56, 28, 10, 12))
    ]


def test_a_span_without_an_end_stops_where_the_next_begins():
    text = "one <box_start><loc-1><loc-2><loc-3> two " + span(9, 9, 4, 4)
    (box,) = parse_boxes(text)
    assert box.x1 == pytest.approx(11 / 224)


def test_locations_outside_a_span_are_no_box():
    assert parse_boxes("<loc-1><loc-2><loc-3><loc-4>") == []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Yes, there is a mask {} on it.", ["there is a mask"]),
        ("I see two. A cat: {}, and a dog ({}).", ["A cat", "a dog"]),
        ("two cats {} {}", ["two cats", "two cats"]),
        ("two cats {} and {}, {}", ["two cats"] * 3),
        ("a cat {}; {}", ["a cat", ""]),
        ("{} a cat", [""]),
        ("Here it is. {}", ["Here it is"]),
        ("<img>a cat</img> {}", ["a cat"]),
        ("图中有一只猫，左边是狗{}", ["左边是狗"]),
        ("costs 3.50 {}", ["costs 3.50"]),
    ],
)
def test_the_label_is_the_phrase_before_the_box(text, labels):
    filled = text.format(*[span(50, 50, 10, 10)] * text.count("{}"))
    assert [box.label for box in parse_boxes(filled)] == labels


@pytest.mark.parametrize("num_locations", [224, 1000])
def test_written_corners_come_back_within_half_a_location(num_locations):
    boxes = random_boxes(200)
    text = write_boxes(boxes, num_locations=num_locations, form="corners")
    read = parse_boxes(text, num_locations=num_locations, form="corners")
    assert [box.label for box in read] == [box.label for box in boxes]
    last = (num_locations - 1) / num_locations
    for box, back in zip(boxes, read, strict=True):
        for given, found in zip(corners(box), corners(back), strict=True):
            assert abs(min(given, last) - found) <= 0.5 / num_locations + 1e-9


def test_written_centre_and_size_come_back_within_half_a_location():
    boxes = random_boxes(200)
    read = parse_boxes(write_boxes(boxes))
    assert [box.label for box in read] == [box.label for box in boxes]
    for box, back in zip(boxes, read, strict=True):
        assert abs(box.x0 + box.x1 - back.x0 - back.x1) / 2 <= HALF + 1e-9
        assert abs((box.x1 - box.x0) - (back.x1 - back.x0)) <= HALF + 1e-9
        for given, found in zip(corners(box), corners(back), strict=True):
            assert abs(given - found) <= 1.5 * HALF + 1e-9


def test_what_was_read_is_written_the_same():
    rng = random.Random(1)
    for _ in range(200):
        width, height = rng.randrange(2, 100, 2), rng.randrange(2, 100, 2)
        place = (rng.randrange(width // 2, 224 - width), rng.randrange(height // 2, 224 - height))
        text = span(*place, width, height)
        assert box_text(parse_boxes(text)[0]) == text


def test_the_whole_picture_is_off_by_one_location():
    whole = Box(x0=0, y0=0, x1=1, y1=1)
    assert box_text(whole) == span(112, 112, 223, 223)
    (back,) = parse_boxes(box_text(whole))
    assert corners(back) == pytest.approx((HALF, HALF, 1 - HALF, 1 - HALF))


def test_boxes_of_one_thing_share_its_label_in_text():
    boxes = [Box(x0=0, y0=0, x1=0.5, y1=0.5, label="cat")] * 2
    assert write_boxes(boxes) == f"cat {span(56, 56, 112, 112)} {span(56, 56, 112, 112)}"
    assert write_boxes([]) == ""
    bare = [Box(x0=0, y0=0, x1=0.5, y1=0.5), boxes[0], Box(x0=0, y0=0, x1=0.5, y1=0.5)]
    assert [box.label for box in parse_boxes(write_boxes(bare))] == ["", "cat", ""]


@pytest.mark.parametrize("edges", [(0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_a_box_that_is_none_is_refused(edges):
    with pytest.raises(DataError, match="shares of the picture"):
        Box(x0=edges[0], y0=edges[1], x1=edges[2], y1=edges[3])


@pytest.mark.parametrize("function", [lambda: parse_boxes("", num_locations=1), None])
def test_a_set_of_one_location_is_refused(function):
    with pytest.raises(ConfigError, match="at least two"):
        (function or (lambda: box_text(Box(x0=0, y0=0, x1=1, y1=1), num_locations=1)))()


def test_pixels_stay_inside_and_are_at_least_one():
    assert Box(x0=0.25, y0=0.5, x1=0.75, y1=1).to_pixels(200, 100) == (50, 50, 150, 100)
    assert Box(x0=1, y0=0, x1=1, y1=0).to_pixels(200, 100) == (199, 0, 200, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a mask {} on the table.", "a mask on the table."),
        ("a mask {}.", "a mask."),
        ("{} is a mask", "is a mask"),
        ("two {}{}\n{} three", "two\nthree"),
        ("    code stays", "    code stays"),
        ("cut <box_start><loc-3>", "cut"),
    ],
)
def test_display_text_has_no_boxes(text, shown):
    assert strip_boxes(text.replace("{}", span(1, 2, 3, 4))) == shown


def test_boxes_are_drawn_where_they_are():
    picture = Image.new("RGB", (400, 200))
    boxes = [Box(x0=0.25, y0=0.25, x1=0.75, y1=0.75), Box(x0=0, y0=0, x1=1, y1=1)]
    drawn = draw_boxes(picture, boxes)
    for place in ((100, 50), (299, 149), (100, 149), (200, 50)):
        assert drawn.getpixel(place) == COLOURS[0]
    for place in ((0, 0), (399, 199), (200, 199)):
        assert drawn.getpixel(place) == COLOURS[1]
    for place in ((99, 49), (300, 150), (200, 100), (102, 52)):
        assert drawn.getpixel(place) == (0, 0, 0)
    assert picture.getextrema() == ((0, 0),) * 3


def test_a_label_stands_above_its_box_or_inside():
    picture = Image.new("RGB", (400, 200), (9, 9, 9))
    low, high = (Box(x0=0.5, y0=top, x1=0.9, y1=0.9, label="cat") for top in (0.5, 0.0))
    above = ImageChops.difference(draw_boxes(picture, [low]), picture).getbbox()
    assert 80 < above[1] < 95
    inside = draw_boxes(picture, [high])
    assert inside.getpixel((201, 1)) == COLOURS[0]
    assert inside.getpixel((210, 1)) == COLOURS[0]  # filled, not only a line
    brightest = max(sum(colour) for _, colour in inside.crop((200, 0, 220, 12)).getcolors())
    assert brightest > 600  # white letters; the field itself sums to 330


def test_a_long_label_at_the_right_edge_begins_further_left():
    picture = Image.new("RGB", (300, 200))
    box = Box(x0=0.9, y0=0.5, x1=1, y1=0.9, label="something with a name")
    left, _, right, _ = draw_boxes(picture, [box]).getbbox()
    assert left < 200
    assert right == 300


def test_lines_grow_with_the_picture():
    thick = draw_boxes(Image.new("L", (1600, 1600)), [Box(x0=0.5, y0=0.5, x1=0.9, y1=0.9)])
    assert thick.mode == "RGB"
    assert [thick.getpixel((800 + step, 1000)) == COLOURS[0] for step in (0, 10, 11)] == [
        True,
        True,
        False,
    ]
    tiny = draw_boxes(Image.new("RGB", (4, 4)), [Box(x0=0, y0=0, x1=0, y1=0, label="x")] * 9)
    assert tiny.size == (4, 4)
