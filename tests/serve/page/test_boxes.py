"""Boxes on pictures."""

import pytest
from PIL import Image, ImageChops

from mllm_npu.serve.page.boxes import COLORS, draw_boxes, legend, mark_of
from mllm_npu.serve.page.conversation import Box

CAT = Box(x0=0.25, y0=0.5, x1=0.75, y1=1.0, label="cat")


def has_color(picture, place, color):
    wanted = tuple(int(color[at : at + 2], 16) for at in (1, 3, 5))
    return picture.getpixel(place) == wanted


def test_edges_are_drawn_and_the_rest_stays():
    white = Image.new("RGB", (400, 400), "white")
    marked = draw_boxes(white, [CAT])
    assert marked.size == (400, 400)
    assert has_color(marked, (100, 300), COLORS[0])
    assert has_color(marked, (200, 399), COLORS[0])
    assert marked.getpixel((200, 300)) == (255, 255, 255)
    assert ImageChops.difference(white, Image.new("RGB", (400, 400), "white")).getbbox() is None


def test_small_pictures_are_enlarged_first():
    assert draw_boxes(Image.new("RGB", (16, 8)), [CAT]).size == (320, 160)


@pytest.mark.parametrize(
    "box",
    [
        Box(x0=0, y0=0, x1=1, y1=1, label="all of it, with a long label that has no room at all"),
        Box(x0=1, y0=1, x1=1, y1=1, label="corner"),
        Box(x0=0.2, y0=0.2, x1=0.2, y1=0.2),
    ],
)
def test_boxes_at_the_edge_do_not_fail(box):
    assert draw_boxes(Image.new("RGB", (60, 500)), [box, box]).size == (60, 500)


def test_labels_the_font_lacks_are_numbers_with_a_legend():
    boxes = [CAT, Box(x0=0, y0=0, x1=1, y1=1, label="猫"), Box(x0=0, y0=0, x1=1, y1=1)]
    marks = [mark_of(number, box, len(boxes)) for number, box in enumerate(boxes, start=1)]
    assert marks == ["cat", "2", "3"]
    assert legend(boxes) == "2 猫"
    assert legend([CAT]) == ""
    assert legend(boxes[1:2]) == "猫"


def test_colors_come_again_after_the_last():
    many = [CAT] * (len(COLORS) + 1)
    assert has_color(draw_boxes(Image.new("RGB", (400, 400)), many), (100, 300), COLORS[0])
