"""Draw the places that a reply names on their picture, with labels."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mllm_npu.serve.page.conversation import Box

COLORS = ("#e4572e", "#2e86ab", "#3b8b4f", "#8e5aa8", "#c9881e", "#17919b")
_SMALLEST_EDGE = 320
"""Pixels; a smaller picture is enlarged, so that lines and labels do not hide it."""
_LINE_SHARE, _FONT_SHARE = 1 / 200, 1 / 26
_LAST_DRAWABLE = "\u024f"
"""Pillow's own font has the Latin letters; other labels stand below the picture."""


def draw_boxes(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """A copy of a picture with boxes on it, each with its number or its label.

    Args:
        picture: RGB.
        boxes: edges as shares of the picture.
    """
    marked = _enlarge(picture)
    pen = ImageDraw.Draw(marked)
    edge = max(marked.size)
    line = max(2, round(edge * _LINE_SHARE))
    font = ImageFont.load_default(max(12, round(edge * _FONT_SHARE)))
    for number, box in enumerate(boxes, start=1):
        color = COLORS[(number - 1) % len(COLORS)]
        right, bottom = marked.width - 1, marked.height - 1
        place = (box.x0 * right, box.y0 * bottom, box.x1 * right, box.y1 * bottom)
        pen.rectangle(place, outline=color, width=line)
        _write(pen, mark_of(number, box, len(boxes)), place, color, font, marked.size)
    return marked


def mark_of(number: int, box: Box, num_boxes: int) -> str:
    """What is written at a box: its label where the font has it, else its number."""
    if box.label and all(letter <= _LAST_DRAWABLE and letter.isprintable() for letter in box.label):
        return box.label
    return str(number) if num_boxes > 1 else ""


def legend(boxes: Sequence[Box]) -> str:
    """The labels that are not written on the picture, with their numbers; "" where all are."""
    marks = [mark_of(number, box, len(boxes)) for number, box in enumerate(boxes, start=1)]
    apart = [
        f"{mark} {box.label}".strip()
        for mark, box in zip(marks, boxes, strict=True)
        if box.label and mark != box.label
    ]
    return " · ".join(apart)


def _enlarge(picture: Image.Image) -> Image.Image:
    factor = -(-_SMALLEST_EDGE // max(picture.size))
    if factor == 1:
        return picture.copy()
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def _write(
    pen: ImageDraw.ImageDraw,
    mark: str,
    place: tuple[float, float, float, float],
    color: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write a mark at the upper left corner of its box, inside the picture."""
    if not mark:
        return
    _, _, width, height = pen.textbbox((0, 0), mark, font=font)
    gap = 0.2 * height
    x = min(place[0], max(0.0, size[0] - width - 2 * gap))
    above = place[1] - height - 2 * gap
    y = above if above >= 0 else min(place[1], max(0.0, size[1] - height - 2 * gap))
    pen.rectangle((x, y, x + width + 2 * gap, y + height + 2 * gap), fill=color)
    pen.text((x + gap, y + gap), mark, fill="white", font=font)
