"""The page shows everything, runs nothing, asks nobody, and can be opened in a browser."""

import base64
import io
import re
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.inspect.look import Wish, take_look
from mllm_npu.data.inspect.page import render_page, show_sample, write_page
from mllm_npu.data.inspect.plan_stats import count_plan
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import DataError

CHROMIUM = Path("/usr/bin/chromium")


class Elements(HTMLParser):
    """Elements with their attributes, and the text outside of styles."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] != "style":
            self.text.append(data)

    def of_class(self, name):
        return [one for _, one in self.found if name in (one.get("class") or "").split()]


def parse(html):
    elements = Elements()
    elements.feed(html)
    return elements


def render(batches, title="Data of a test", **wish):
    look = take_look(batches.order.plan, batches.reader, Wish(**wish))
    stats = count_plan(batches.order.plan)
    return look, render_page(look, stats, title=title, tile_size=16)


@pytest.fixture(scope="module")
def rendered(batches):
    return render(batches, num_samples=30, num_packs=3)


@pytest.fixture(scope="module")
def elements(rendered):
    return parse(rendered[1])


def test_every_piece_is_a_box_with_its_place(rendered, elements):
    look, _ = rendered
    boxes = [one for one in elements.of_class("t") if "data-ids" in one]
    pieces = [piece for view in look.samples for piece in view.pieces]
    assert len(boxes) == len(pieces) > 100
    for box, piece in zip(boxes, pieces, strict=True):
        kinds = box["class"].split()
        assert piece.kind in kinds
        assert ("loss" in kinds) == piece.carries_loss
        place = f"place {piece.begin}," if len(piece.ids) == 1 else f"places {piece.begin}–"
        assert box["title"].startswith(place)
        assert str(piece.ids[0]) in box["title"]


def test_every_tile_is_on_its_picture(rendered, elements):
    look, _ = rendered
    tiles = [
        tile
        for view in look.samples
        for picture in view.pictures
        for tile in picture.tiles
        if not tile.is_whole
    ]
    styles = [one["style"] for tag, one in elements.found if tag == "i" and "left:" in one["style"]]
    assert len(styles) == len(tiles) > 10
    for style, tile in zip(styles, tiles, strict=True):
        told = [float(number) for number in re.findall(r"([\d.e-]+)%", style)]
        wanted = [100 * share for share in (tile.left, tile.top, tile.width, tile.height)]
        assert told == pytest.approx(wanted, abs=0.01)
    drawn = sum(picture.is_drawn for view in look.samples for picture in view.pictures)
    assert (
        len([one for one in elements.of_class("drawn") if "--ratio" in one.get("style", "")])
        == drawn
    )


def test_packs_are_bars_of_their_samples(rendered, elements):
    look, _ = rendered
    bars = [one for tag, one in elements.found if tag == "i" and "width:" in one["style"]]
    bars = [one for one in bars if "token" in one.get("title", "")]
    segments = [part for pack in look.packs for part in pack.segments]
    assert len(bars) == len(segments)
    for bar, part in zip(bars, segments, strict=True):
        assert bar["title"].startswith(f"{part.source} · {part.key} · {part.num_tokens} token")
        width = float(re.search(r"width: ([\d.]+)%", bar["style"]).group(1))
        assert width == pytest.approx(100 * part.num_tokens / 256, abs=0.01)


def test_the_page_says_where_samples_come_from(rendered, elements):
    look, _ = rendered
    said = " ".join(elements.text)
    for view in look.samples:
        assert view.key in said
        assert view.shard in said
    assert "Data of a test" in said


def test_nothing_is_fetched_and_nothing_runs(rendered, elements):
    _, html = rendered
    assert not [tag for tag, _ in elements.found if tag in ("script", "link", "iframe", "object")]
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not ({"href", "srcset", "data"} & set(attributes)), tag
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/")
    assert "url(" not in html
    assert "@import" not in html


def test_a_caption_that_is_a_script_is_shown_and_not_run(open_batches, make_row, png, tmp_path):
    evil = "</span><script>alert(1)</script><img src=x onerror=alert(2)>"
    row = make_row("a\"><script>'", png=png(32, 16), txt=evil.encode())
    write_shard(tmp_path / "a.tar", [row])
    name = "<b onclick='x()'>set</b>\"&"
    source = Source(name=name, shards=str(tmp_path / "a.tar"), task=Caption(draw_share=0.0))
    _, html = render(open_batches(sources=[source]), title="<script>title()</script>")
    elements = parse(html)
    assert not [tag for tag, _ in elements.found if tag == "script"]
    assert not [one for _, one in elements.found if "onerror" in one or "onclick" in one]
    said = "".join(elements.text)
    assert "<script>title()</script>" in said
    assert name in said
    assert "a\"><script>'" in said
    # Every token of the caption is a box of its own, so its characters are there in order.
    boxes = re.findall(r'<span class="t text loss" data-ids[^>]*>(.*?)</span>', html)
    assert unescape("".join(boxes)).replace("␣", " ") == evil


def test_pictures_are_the_pixels(rendered):
    look, _ = rendered
    view = next(view for view in look.samples if view.num_tiles > 1)
    shown = show_sample(view)
    assert len(shown.tiles) == view.num_tiles
    for tile, pixels in zip(shown.tiles, view.tiles, strict=True):
        assert tile.url.startswith("data:image/png;base64,")
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(tile.url.split(",")[1]))))
        assert (seen == pixels.permute(1, 2, 0).numpy()).all()
    assert [picture.view for picture in shown.pictures] == list(view.pictures)


def test_what_the_image_decoder_learns_is_shown(rendered):
    look, _ = rendered
    view = next(view for view in look.samples if view.num_drawn)
    assert [picture.caption for picture in show_sample(view).decoded] == ["target 0"]


def test_photographs_are_bounded(tokenizer, make_processor, open_batches, make_row, tmp_path):
    from mllm_npu.processing.anyres import AnyResolution

    noise = np.random.default_rng(0).integers(0, 255, (700, 1100, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    write_shard(tmp_path / "a.tar", [make_row("a", jpg=file.getvalue(), txt=b"seven")])
    processor = make_processor(
        tokenizer,
        any_resolution=AnyResolution(grids=["1x1", "2x2", "3x2"], tile_size=448),
        picture_size=None,
    )
    source = Source(name="a", shards=str(tmp_path / "a.tar"), task=Caption(draw_share=0.0))
    batches = open_batches(sources=[source])
    from mllm_npu.data.loader import PackedBatches

    batches = PackedBatches(sources=[source], processor=processor, tokens_per_pack=256, seed=0)
    look = take_look(batches.order.plan, batches.reader, Wish(num_samples=1, num_packs=0))
    shown = show_sample(look.samples[0])
    assert len(shown.tiles) == 7
    for picture in (*shown.tiles, *shown.pictures):
        data = base64.b64decode(picture.url.split(",")[1])
        assert picture.url.startswith("data:image/jpeg")
        assert max(Image.open(io.BytesIO(data)).size) <= 480
        assert len(data) < 200_000


def test_a_sliver_of_a_picture_does_not_stretch_the_page(open_batches, make_row, png, tmp_path):
    rows = [
        make_row("tall", png=png(1, 900), txt=b"one"),
        make_row("wide", png=png(900, 1), txt=b"two"),
    ]
    write_shard(tmp_path / "a.tar", rows)
    source = Source(name="a", shards=str(tmp_path / "a.tar"), task=Caption(draw_share=0.0))
    _, html = render(open_batches(sources=[source]))
    ratios = [float(ratio) for ratio in re.findall(r"--ratio: ([\d.]+)", html)]
    assert sorted(ratios) == [0.1, 12]


def test_a_page_without_packs_or_samples_still_has_numbers(batches):
    _, html = render(batches, num_samples=0, num_packs=0)
    said = " ".join(parse(html).text)
    assert "Tokens of a sample" in said
    assert "Packs" not in said


def test_what_was_left_out_is_said(open_batches, make_row, tmp_path):
    rows = [make_row(f"row{n}", txt=b"no </s> please", png=b"nothing") for n in range(4)]
    write_shard(tmp_path / "a.tar", rows)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:5000])
    source = Source(name="a", shards=str(tmp_path / "a.tar"), task=Caption(draw_share=0.0))
    look, html = render(open_batches(sources=[source]))
    assert look.left_out
    said = " ".join(parse(html).text)
    for reason in look.left_out:
        assert reason in said
    assert "Broken places of shards" in said


def test_a_page_is_written_whole(tmp_path):
    write_page(tmp_path / "deep" / "page.html", "<p>鱼</p>")
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8") == "<p>鱼</p>"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", "")


@pytest.mark.skipif(not CHROMIUM.is_file(), reason="no /usr/bin/chromium to open the page in")
@pytest.mark.parametrize("size", ["1200,1600", "500,1600"])
def test_a_browser_shows_the_page(rendered, tmp_path, size):
    write_page(tmp_path / "page.html", rendered[1])
    shot = tmp_path / "shot.png"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"]
    command += [f"--window-size={size}", f"--screenshot={shot}", (tmp_path / "page.html").as_uri()]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    with Image.open(shot) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert len(colours) > 50
    background = max(count for count, _ in colours)
    assert background < 0.98 * sum(count for count, _ in colours)
    # The colours of the data sets: the bars of the packs are there.
    assert {(0x4C, 0x8D, 0xFF), (0xF0, 0x93, 0x2B)} <= {colour for _, colour in colours}
