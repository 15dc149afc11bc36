"""Scene pictures: one to three coloured shapes in the quarters of a picture, with jitter."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from mllm_npu.data.worlds.world import Split
from mllm_npu.errors import SkipSample

PICTURE_SIZE = 32
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 80, 230),
    "yellow": (240, 210, 40),
    "purple": (150, 60, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
BACKGROUND = (18, 18, 24)
MAX_OBJECTS = 3

_SUPERSAMPLING = 4
_CROSS_WIDTH = 0.33
_HELD_OUT: tuple[tuple[Split, float], ...] = (("test", 0.10), ("valid", 0.15))


class Thing(NamedTuple):
    """One shape of a scene.

    Args:
        color: a name of COLORS.
        shape: one of SHAPES.
        position: one of POSITIONS; no two things share one.
        number: which jitter it has; a thing keeps it when the scene is edited.
    """

    color: str
    shape: str
    position: str
    number: int


Scene = tuple[Thing, ...]
"""Things in the order of POSITIONS."""


class Jitter(NamedTuple):
    """How a thing deviates: shift of the centre and radius, as shares of the picture's edge."""

    right: float
    down: float
    radius: float


def sort_scene(things: Sequence[Thing]) -> Scene:
    """The things in the order in which captions name them."""
    return tuple(sorted(things, key=lambda thing: POSITIONS.index(thing.position)))


def describe_scene(scene: Scene) -> list[list[Any]]:
    """A scene as plain values for json."""
    return [list(thing) for thing in scene]


def parse_scene(value: Any) -> Scene:
    """A scene from the plain values of a row.

    Raises:
        SkipSample: if it is not one.
    """
    try:
        things = [Thing(*entry) for entry in value]
    except TypeError as error:
        raise SkipSample("scene broken") from error
    for thing in things:
        if thing.color not in COLORS or thing.shape not in SHAPES:
            raise SkipSample("scene with an unknown color or shape")
        if thing.position not in POSITIONS or thing.number not in range(len(POSITIONS)):
            raise SkipSample("scene with an unknown position")
    return sort_scene(things)


def split_of(scene: Scene) -> Split:
    """The one split a composition belongs to, by its hash; training never shows a test scene."""
    text = "|".join(f"{thing.color} {thing.shape} {thing.position}" for thing in scene)
    rank = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    return next((split for split, edge in _HELD_OUT if rank < edge), "train")


def draw_jitters(rng: Random) -> list[Jitter]:
    """One jitter for every number a thing may have."""
    return [
        Jitter(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), rng.uniform(0.15, 0.19))
        for _ in POSITIONS
    ]


def render(scene: Scene, jitters: Sequence[Jitter], *, size: int = PICTURE_SIZE) -> Image.Image:
    """Draw a scene, RGB of ``size`` x ``size`` pixels, smooth at the edges."""
    edge = size * _SUPERSAMPLING
    picture = Image.new("RGB", (edge, edge), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for thing in scene:
        jitter, place = jitters[thing.number], POSITIONS.index(thing.position)
        x = edge * (0.25 + 0.5 * (place % 2) + jitter.right)
        y = edge * (0.25 + 0.5 * (place // 2) + jitter.down)
        _draw_shape(pen, thing.shape, x, y, edge * jitter.radius, COLORS[thing.color])
    return picture.reduce(_SUPERSAMPLING)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, color: tuple[int, int, int]
) -> None:
    match shape:
        case "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
        case "square":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=color)
        case "triangle":
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
        case _:
            arm = r * _CROSS_WIDTH
            pen.rectangle((x - r, y - arm, x + r, y + arm), fill=color)
            pen.rectangle((x - arm, y - r, x + arm, y + r), fill=color)


def encode_picture(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
