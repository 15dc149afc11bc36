"""Places in pictures: location tokens to boxes, boxes to location tokens, boxes on a picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.processing.special_tokens import BOX_BEGIN, BOX_END, location_token

BoxForm = Literal["centre", "corners"]
"""What the four locations of a box are: centre x, centre y, width, height, as in SEED-X; or left,
top, right, bottom."""

COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 165, 0),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (255, 225, 25),
)
"""Of the first box, the second, ...; far apart from each other, and used again from the start."""

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_BEGIN, _END, _LOCATION = re.escape(BOX_BEGIN), re.escape(BOX_END), r"<loc-(\d+)>"
_SPAN = re.compile(rf"{_BEGIN}(.*?)(?:{_END}|(?={_BEGIN})|\Z)", re.DOTALL)
_NUMBER = re.compile(_LOCATION)
_ANY_TOKEN = rf"(?:{_BEGIN}|{_END}|<loc-\d+>)"
_AT_LINE_START = re.compile(rf"^(?:[ \t]*{_ANY_TOKEN})+[ \t]*", re.MULTILINE)
_IN_LINE = re.compile(rf"(?:[ \t]*{_ANY_TOKEN})+")
_TAG = re.compile(r"<[^<>\s]*>")
_CLAUSE_END = re.compile(r"[.!?;,:](?=\s|$)|[\n。！？；，：、]")
_SAME_THING = re.compile(r"[\s,、]*(?:and|or|&|和|与)?\s*")
_OPENING = re.compile(r"^(?:and|or|&)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in a picture.

    Args:
        x0: left edge, as a share of the picture's width, 0..1.
        y0: top edge, as a share of its height.
        x1: right edge, not left of ``x0``.
        y1: bottom edge, not above ``y0``.
        label: what is in it; "" where nothing is said.

    Raises:
        DataError: edges outside the picture or in the wrong order.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    label: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.x0 <= self.x1 <= 1 and 0 <= self.y0 <= self.y1 <= 1):
            raise DataError(
                f"A box from ({self.x0}, {self.y0}) to ({self.x1}, {self.y1}) was asked for. Give "
                "left, top, right and bottom as shares of the picture, 0..1, in that order."
            )

    def to_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom as ``Image.crop`` takes them; at least one pixel, all inside."""
        left, right = _pixels(self.x0, self.x1, width)
        top, bottom = _pixels(self.y0, self.y1, height)
        return left, top, right, bottom


def parse_boxes(text: str, *, num_locations: int = 224, form: BoxForm = "centre") -> list[Box]:
    """Boxes that a text names, in reading order.

    A location i stands at i / num_locations of the width or height. What is no box is passed over:
    too few locations, locations that do not exist, text between them. Every four locations of a
    span are a box; corners in the wrong order are put right; a span may lack its end.

    Args:
        text: an answer with its location and box tokens.
        num_locations: size of the vocabulary's set of locations.
        form: what the four locations of a box are.

    Returns:
        Boxes labelled by the phrase before them; boxes side by side share it.

    Source: the demo of SEED-X (arXiv 2404.14396) reads centre and size and divides by 224.
    """
    _check_locations(num_locations)
    boxes: list[Box] = []
    label, end = "", 0
    for span in _SPAN.finditer(text):
        label = _label(text[end : span.start()], label)
        end = span.end()
        numbers = [int(number) for number in _NUMBER.findall(span[1])]
        shares = [number / num_locations for number in numbers if number < num_locations]
        for start in range(0, len(shares) - 3, 4):
            x0, y0, x1, y1 = _to_corners(shares[start : start + 4], form)
            boxes.append(Box(x0=x0, y0=y0, x1=x1, y1=y1, label=label))
    return boxes


def box_text(box: Box, *, num_locations: int = 224, form: BoxForm = "centre") -> str:
    """Tokens of a box, without its label: ``<box_start>``, four locations, ``<box_end>``.

    Each of the four is off by at most half a location; by one where it is the far edge itself,
    which has no location of its own.
    """
    _check_locations(num_locations)
    shares: tuple[float, ...] = (box.x0, box.y0, box.x1, box.y1)
    if form == "centre":
        middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        shares = (*middle, box.x1 - box.x0, box.y1 - box.y0)
    numbers = [min(int(share * num_locations + 0.5), num_locations - 1) for share in shares]
    return f"{BOX_BEGIN}{''.join(map(location_token, numbers))}{BOX_END}"


def write_boxes(boxes: Iterable[Box], *, num_locations: int = 224, form: BoxForm = "centre") -> str:
    """A text that ``parse_boxes`` reads back: labels and boxes, such as training answers hold.

    Labels come back as they are unless they hold punctuation or begin with "and" or "or".
    """
    text, previous = "", None
    for box in boxes:
        tokens = box_text(box, num_locations=num_locations, form=form)
        if previous is None:
            text = f"{box.label} {tokens}".lstrip()
        elif box.label == previous:
            text += f" {tokens}"
        else:
            text += f"; {box.label} {tokens}" if box.label else f"; {tokens}"
        previous = box.label
    return text


def strip_boxes(text: str) -> str:
    """A text for display: without box and location tokens and the blanks in front of them."""
    return _IN_LINE.sub("", _AT_LINE_START.sub("", text))


def draw_boxes(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Boxes and their labels on a copy of a picture.

    Args:
        picture: of any mode; it is not changed.
        boxes: each gets the next of ``COLOURS``.

    Returns:
        An RGB picture of the same size. Lines and letters grow with it.
    """
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    shorter = min(drawn.size)
    line, font = max(1, round(shorter / 150)), ImageFont.load_default(size=max(10, shorter // 25))
    places = [box.to_pixels(*drawn.size) for box in boxes]
    for number, (left, top, right, bottom) in enumerate(places):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=_colour(number), width=line)
    for number, (box, place) in enumerate(zip(boxes, places, strict=True)):
        if box.label:
            _write_label(pen, box.label, place, room=drawn.width, font=font, colour=_colour(number))
    return drawn


def _write_label(
    pen: ImageDraw.ImageDraw,
    label: str,
    place: tuple[int, int, int, int],
    *,
    room: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    """A label on a field of the box's colour: above the box, or inside where there is no room."""
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
    margin = 2
    width, height = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
    x = max(0, min(place[0], room - width))
    y = place[1] - height if place[1] >= height else place[1]
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    red, green, blue = colour
    ink = _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE
    pen.text((x + margin - left, y + margin - top), label, font=font, fill=ink)


def _colour(number: int) -> tuple[int, int, int]:
    return COLOURS[number % len(COLOURS)]


def _to_corners(shares: Sequence[float], form: BoxForm) -> tuple[float, float, float, float]:
    a, b, c, d = shares
    if form == "centre":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    a, b, c, d = (min(max(share, 0.0), 1.0) for share in (a, b, c, d))
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _label(before: str, previous: str) -> str:
    """The last clause before a box; the one of the box in front where nothing stands between."""
    words = _TAG.sub(" ", before)
    if _SAME_THING.fullmatch(words):
        return previous
    clauses = [" ".join(clause.strip(" \t(（-").split()) for clause in _CLAUSE_END.split(words)]
    return _OPENING.sub("", next((clause for clause in reversed(clauses) if clause), ""))


def _pixels(near: float, far: float, size: int) -> tuple[int, int]:
    start = min(round(near * size), size - 1)
    return start, min(max(round(far * size), start + 1), size)


def _check_locations(num_locations: int) -> None:
    if num_locations < 2:
        raise ConfigError(
            f"num_locations={num_locations} was asked for. Give at least two, as many as the "
            "tokenizer has location tokens."
        )
