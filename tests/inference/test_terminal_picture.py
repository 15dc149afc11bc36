"""What a terminal gets is the picture: each protocol is read back, from a real terminal's end."""

import base64
import io
import os
import pty
import re
import threading
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from mllm_npu.inference.terminal_picture import (
    MOST_PIXELS,
    Way,
    find_way,
    fit,
    show_picture,
    to_blocks,
    to_iterm,
    to_kitty,
    to_sixel,
)


class Terminal:
    """A pseudo terminal: a console that writes to it, and what has arrived at its other end."""

    def __init__(self, **variables):
        self.end, inner = pty.openpty()
        self.file = os.fdopen(inner, "w", encoding="utf-8")
        self.variables = {"TERM": "xterm-256color", **variables}
        self.console = Console(file=self.file, _environ=self.variables, width=80)
        self.seen = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def show(self, picture, asked=Way.AUTO):
        way = find_way(asked, console=self.console, variables=self.variables)
        show_picture(picture, way=way, console=self.console)
        return way

    def close(self):
        """All that was shown; ends the terminal."""
        if not self.file.closed:
            self.file.close()
            self._reader.join()
            os.close(self.end)
        return self.seen.decode()

    def _read(self):
        while True:
            try:
                piece = os.read(self.end, 65536)
            except OSError:  # the other end is closed
                return
            self.seen += piece


@pytest.fixture
def terminal():
    """Opens terminals; closes them."""
    opened = []

    def open_one(**variables):
        opened.append(Terminal(**variables))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def photo(width=200, height=90):
    """Many colours, none of them where its mirror image has it."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [x * 255 // width, y * 255 // height, (x * x * 7 + x * y * 13) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGB")


def same(first, second, tolerance=0):
    first, second = (np.asarray(each.convert("RGB")).astype(int) for each in (first, second))
    return first.shape == second.shape and np.abs(first - second).max() <= tolerance


def read_kitty(text):
    """The picture of kitty's sequences, put together as a terminal does."""
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    keys = [dict(pair.split("=") for pair in told.split(",")) for told, _ in chunks]
    assert keys[0] | {"m": ""} == {"a": "T", "f": "100", "q": "2", "m": ""}
    assert all(key.keys() == {"q", "m"} for key in keys[1:])
    assert [key["m"] for key in keys] == ["1"] * (len(keys) - 1) + ["0"]
    assert all(len(packed) <= 4096 for _, packed in chunks)
    return opened(base64.b64decode("".join(packed for _, packed in chunks), validate=True))


def read_iterm(text):
    told, packed = re.search(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", text).groups()
    values = dict(pair.split("=") for pair in told.split(";"))
    data = base64.b64decode(packed, validate=True)
    picture = opened(data)
    assert values == {
        "inline": "1",
        "size": str(len(data)),
        "width": f"{picture.width}px",
        "height": f"{picture.height}px",
    }
    return picture


def read_sixel(text):
    """Paint sixels pixel by pixel, as the manual of DEC's terminals says."""
    body = re.search(r"\x1bP0;1q(.*?)\x1b\\", text).group(1)
    width, height = map(int, re.match(r'"1;1;(\d+);(\d+)', body).groups())
    canvas = np.full((height + 5, width, 3), -1)
    palette, colour, x, top = {}, None, 0, 0
    pattern = r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)"
    for number, r, g, b, chosen, times, repeated, single, back, down in re.findall(pattern, body):
        if number:
            palette[number] = [round(int(share) * 255 / 100) for share in (r, g, b)]
        elif chosen:
            colour = palette[chosen]
        elif back or down:
            x, top = 0, top + (6 if down else 0)
        else:
            bits, run = ord(repeated or single) - 63, int(times or 1)
            for row in range(6):
                if bits >> row & 1:
                    canvas[top + row, x : x + run] = colour
            x += run
    assert (canvas[:height] >= 0).all()
    assert (canvas[height:] == -1).all()
    return Image.fromarray(canvas[:height].astype(np.uint8), "RGB")


def read_blocks(text):
    """Two pixels of each half block."""
    rows = []
    for line in text.replace("\r", "").split("\n"):
        cells = re.findall(r"\x1b\[38;2;([\d;]+?)(?:;48;2;([\d;]+))?m(▀+)", line)
        upper, lower = [], []
        for above, below, blocks in cells:
            upper += [[int(share) for share in above.split(";")]] * len(blocks)
            lower += [[int(share) for share in below.split(";")] if below else None] * len(blocks)
        rows += [upper, lower] if upper else []
    if rows[-1][0] is None:
        rows.pop()
    return Image.fromarray(np.array(rows, dtype=np.uint8), "RGB")


def opened(data):
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return picture


TERMINALS = [
    ({"TERM": "xterm-kitty"}, Way.KITTY),
    ({"KITTY_WINDOW_ID": "1"}, Way.KITTY),
    ({"TERM_PROGRAM": "ghostty"}, Way.KITTY),
    ({"TERM": "xterm-ghostty"}, Way.KITTY),
    ({"TERM_PROGRAM": "iTerm.app"}, Way.ITERM),
    ({"TERM_PROGRAM": "WezTerm"}, Way.ITERM),
    ({"LC_TERMINAL": "iTerm2"}, Way.ITERM),
    ({"TERM": "foot"}, Way.SIXEL),
    ({"TERM": "xterm-sixel"}, Way.SIXEL),
    ({"COLORTERM": "truecolor"}, Way.BLOCKS),
    ({}, Way.OFF),
    ({"TERM": "dumb"}, Way.OFF),
    ({"COLORTERM": "truecolor", "NO_COLOR": "1"}, Way.OFF),
    ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, Way.BLOCKS),
    ({"TMUX": "/tmp/tmux", "TERM": "xterm-kitty", "TERM_PROGRAM": "tmux"}, Way.OFF),
    ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, Way.OFF),
]
READERS = {Way.KITTY: read_kitty, Way.ITERM: read_iterm}


@pytest.mark.parametrize(("variables", "way"), TERMINALS)
def test_a_terminal_says_what_it_is(terminal, variables, way):
    shown = terminal(**variables)
    assert shown.show(photo()) is way
    text = shown.close()
    assert ("\x1b_G" in text) == (way is Way.KITTY)
    assert ("\x1b]1337;" in text) == (way is Way.ITERM)
    assert ("\x1bP" in text) == (way is Way.SIXEL)
    assert ("▀" in text) == (way is Way.BLOCKS)
    assert way is not Way.OFF or text == ""


@pytest.mark.parametrize("way", READERS)
def test_the_picture_arrives_whole_at_the_other_end(terminal, way):
    picture, shown = photo(), terminal()
    assert shown.show(picture, way) is way
    text = shown.close()
    assert len(text) > 3 * 4096  # of several chunks
    assert same(READERS[way](text), picture)
    assert text.endswith("\r\n")


def test_sixels_are_the_picture_in_256_colours(terminal):
    shown = terminal(TERM="foot")
    shown.show(photo())
    # Shares of a colour are told in hundredths.
    assert same(read_sixel(shown.close()), photo().quantize(256), tolerance=3)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (128, 6), (130, 7), (140, 11)])
def test_sixels_of_any_size(size):
    picture = fit(photo(*size))
    assert same(read_sixel(to_sixel(picture)), picture.quantize(256), tolerance=3)


def test_what_repeats_in_sixels_is_counted():
    plain = to_sixel(Image.new("RGB", (400, 12), "red"))
    assert plain.count("!400~") == 2
    assert len(plain) < 100


@pytest.mark.parametrize("size", [(10, 8), (10, 7), (1, 1)])
def test_half_blocks_are_two_pixels_each(terminal, size):
    shown = terminal(COLORTERM="truecolor")
    shown.show(photo(*size))
    assert same(read_blocks(shown.close()), photo(*size))


def test_half_blocks_fit_into_the_terminal():
    lines = to_blocks(photo(), columns=20).plain.split("\n")
    assert [len(line) for line in lines] == [20] * 5
    assert isinstance(to_blocks(photo(), columns=1), Text)


def test_a_picture_in_a_file_is_not_there_unless_it_is_asked_for():
    out = io.StringIO()
    console = Console(file=out, width=80)
    variables = {"TERM": "xterm-kitty"}
    assert find_way(Way.AUTO, console=console, variables=variables) is Way.OFF
    assert find_way(Way.KITTY, console=console, variables={}) is Way.KITTY
    show_picture(photo(), way=Way.KITTY, console=console)
    assert same(read_kitty(out.getvalue()), photo())


def test_small_pictures_are_enlarged_pixel_by_pixel_and_large_ones_reduced():
    small = fit(photo(16, 10))
    assert small.size == (128, 80)
    assert same(small.resize((16, 10), Image.Resampling.NEAREST), photo(16, 10))
    assert fit(photo(128, 10)).size == (128, 10)
    assert fit(photo(2000, 1000)).size == (MOST_PIXELS, MOST_PIXELS // 2)
    assert fit(Image.new("RGBA", (200, 200))).mode == "RGB"


def test_a_picture_that_is_shown_is_not_changed():
    picture = photo(2000, 1000)
    for encode in (to_kitty, to_iterm, to_sixel):
        encode(fit(picture))
    assert same(picture, photo(2000, 1000))


def test_a_large_photograph_is_encoded_soon():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8), "RGB")
    begin = time.process_time()
    to_sixel(noise)
    assert time.process_time() - begin < 10
