"""Show a picture in a terminal: by the terminal's own protocol, or as half blocks in colour.

Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol, https://iterm2.com/documentation-images.html,
and for sixels the manual of DEC's VT330/340, chapter 14.

Shape letters: H rows and W columns of pixels; a band is up to 6 rows.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

LEAST_PIXELS, MOST_PIXELS = 128, 512
"""Edges between which a picture is shown: smaller ones are enlarged, larger ones reduced."""
MOST_BLOCKS = 64
"""Columns of half blocks at most."""
_KITTY_CHUNK = 4096
_BAND_ROWS, _FIRST_SIXEL = 6, 63
_ITERM_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
_SIXEL_TERMINALS = ("foot", "foot-extra", "mlterm", "mlterm-256color", "contour")
_MULTIPLEXERS = ("screen", "tmux")


class Way(StrEnum):
    """How a picture is shown; the values are those of ``--pictures``."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM = "iterm"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    OFF = "off"


def find_way(asked: Way, *, console: Console, variables: Mapping[str, str]) -> Way:
    """The way to show pictures in a terminal; one that is asked for by name is taken as it is.

    Nothing is sent to the terminal to ask what it can: its answer would be typed into the talk.

    Args:
        asked: by the person.
        console: where pictures are shown.
        variables: of the environment; terminals say there what they are.
    """
    if asked is not Way.AUTO:
        return asked
    if not console.is_terminal:
        return Way.OFF
    terminal = variables.get("TERM", "")
    program = variables.get("TERM_PROGRAM", "")
    # A multiplexer swallows what it does not know, and keeps the variables of what is around it.
    if "TMUX" not in variables and not terminal.startswith(_MULTIPLEXERS):
        is_ghostty = program == "ghostty" or terminal == "xterm-ghostty"
        if is_ghostty or terminal == "xterm-kitty" or "KITTY_WINDOW_ID" in variables:
            return Way.KITTY
        if program in _ITERM_PROGRAMS or variables.get("LC_TERMINAL") == "iTerm2":
            return Way.ITERM
        if terminal in _SIXEL_TERMINALS or "sixel" in terminal:
            return Way.SIXEL
    has_colours = console.color_system == "truecolor" and not console.no_color
    return Way.BLOCKS if has_colours else Way.OFF


def show_picture(picture: Image.Image, *, way: Way, console: Console) -> None:
    """Print a picture where the cursor is; nothing with ``Way.OFF``."""
    if way is Way.BLOCKS:
        console.print(to_blocks(picture, columns=min(MOST_BLOCKS, console.width)))
    elif way in _ENCODERS:
        # Past the console, which would take the sequence apart into lines.
        console.file.write(_ENCODERS[way](fit(picture)) + "\n")
        console.file.flush()


def fit(picture: Image.Image) -> Image.Image:
    """A picture in a size to be looked at; a small one keeps its pixels, each becomes several."""
    picture = picture.convert("RGB")
    factor = LEAST_PIXELS // max(picture.size)
    if factor > 1:
        return picture.resize([factor * edge for edge in picture.size], Image.Resampling.NEAREST)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return picture


def to_kitty(picture: Image.Image) -> str:
    """A PNG in chunks, as kitty takes it; ``q=2`` asks for no answer."""
    packed = _png(picture)
    chunks = [packed[at : at + _KITTY_CHUNK] for at in range(0, len(packed), _KITTY_CHUNK)]
    keys = ["a=T,f=100,q=2,", *["q=2,"] * (len(chunks) - 1)]
    more = [1] * (len(chunks) - 1) + [0]
    return "".join(
        f"\x1b_G{key}m={flag};{chunk}\x1b\\"
        for key, flag, chunk in zip(keys, more, chunks, strict=True)
    )


def to_iterm(picture: Image.Image) -> str:
    """A PNG with its size in pixels, as iTerm2 takes it."""
    packed, (width, height) = _png(picture), picture.size
    size = len(base64.b64decode(packed))
    return f"\x1b]1337;File=inline=1;size={size};width={width}px;height={height}px:{packed}\x07"


def to_sixel(picture: Image.Image) -> str:
    """Sixels: of each band and each of at most 256 colours, which of 6 pixels a column has."""
    paletted = picture.quantize(256)
    pixels_HW = np.asarray(paletted)
    shares = np.reshape(paletted.getpalette() or [], (-1, 3)) * 100 // 255
    palette = [f"#{number};2;{r};{g};{b}" for number, (r, g, b) in enumerate(shares)]
    bands = [
        "$".join(
            f"#{colour}{_sixels(pixels_HW[top : top + _BAND_ROWS] == colour)}"
            for colour in np.unique(pixels_HW[top : top + _BAND_ROWS])
        )
        for top in range(0, picture.height, _BAND_ROWS)
    ]
    size = f'"1;1;{picture.width};{picture.height}'
    return f"\x1bP0;1q{size}{''.join(palette)}{'-'.join(bands)}\x1b\\"


def to_blocks(picture: Image.Image, *, columns: int) -> Text:
    """Half blocks: two pixels a character, one above the other."""
    small = picture.convert("RGB")
    small.thumbnail((columns, columns))
    lines = []
    for row in range(0, small.height, 2):
        line = Text()
        for column in range(small.width):
            line.append("▀", style=" on ".join(_colours(small, column, row)))
        lines.append(line)
    return Text("\n").join(lines)


def _sixels(has_colour_HW: np.ndarray) -> str:
    """A colour's part of a band; what repeats is counted."""
    bits_W = (1 << np.arange(len(has_colour_HW))) @ has_colour_HW + _FIRST_SIXEL
    text = bits_W.astype(np.uint8).tobytes().decode("ascii")
    return re.sub(r"(.)\1{3,}", lambda found: f"!{len(found[0])}{found[1]}", text)


def _png(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _colours(picture: Image.Image, column: int, row: int) -> list[str]:
    """Of the pixel and of the one below it, where there is one."""
    rows = range(row, min(row + 2, picture.height))
    return ["rgb({},{},{})".format(*picture.getpixel((column, each))) for each in rows]  # type: ignore[misc]  # RGB after convert


_ENCODERS: Mapping[Way, Callable[[Image.Image], str]] = {
    Way.KITTY: to_kitty,
    Way.ITERM: to_iterm,
    Way.SIXEL: to_sixel,
}
