"""Pictures are taken within limits, sent as they came where they can be, and not kept for ever."""

import base64
import os

import pytest
from PIL import Image

from mllm_npu.serve.page.pictures import PictureError, PictureStore


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path, max_bytes=200_000, max_pixels=10_000_000, keep_seconds=100)


def test_a_plain_picture_is_sent_as_it_came(store, png):
    data = png((300, 200))
    taken = store.take_bytes(data)
    assert (taken.width, taken.height, taken.shown) == (300, 200, taken.path)
    assert store.read(taken) == data
    assert store.data_url(taken) == f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert store.take_bytes(data) == taken


def test_a_small_picture_is_shown_enlarged_and_sent_small(store, png):
    taken = store.take_bytes(png((16, 8)))
    with Image.open(taken.path) as sent, Image.open(taken.shown) as shown:
        assert (sent.size, shown.size) == ((16, 8), (160, 80))


def test_a_picture_is_turned_upright_and_put_on_white(store, png):
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = store.take_bytes(png((40, 20), form="JPEG", exif=turned))
    assert (upright.width, upright.height) == (20, 40)
    clear = store.take_bytes(png((4, 4), color=(255, 0, 0, 0), mode="RGBA"))
    assert store.open(clear).getpixel((0, 0)) == (255, 255, 255)


def test_other_formats_are_packed_anew(store, png):
    assert store.take_bytes(png(form="BMP")).path.suffix == ".png"
    assert store.take_bytes(png(form="GIF", mode="P", color=0)).path.suffix == ".png"
    assert store.data_url(store.take_bytes(png(form="JPEG"))).startswith("data:image/jpeg;")
    assert store.data_url(store.take_bytes(png(form="WEBP"))).startswith("data:image/webp;")


def test_a_large_picture_is_scaled_down(store, png):
    taken = store.take_bytes(png((3000, 1500)))
    assert (taken.width, taken.height, taken.path.suffix) == (2048, 1024, ".jpg")


def test_what_is_no_picture_is_refused(store, png, tmp_path):
    broken = png((64, 64))[:60]
    for data in (b"", b"<svg/>", b"%PDF-1.4", broken):
        with pytest.raises(PictureError):
            store.take_bytes(data)
    with pytest.raises(PictureError, match="4000x4000"):
        store.take_bytes(png((4000, 4000), mode="1", color=0))
    long = tmp_path / "long"
    long.write_bytes(b"x" * 200_001)
    with pytest.raises(PictureError, match="more than"):
        store.take_file(long)
    with pytest.raises(PictureError, match="No such file"):
        store.take_file(tmp_path / "none")


def test_data_urls(store, data_url):
    assert store.take_url(data_url(size=(8, 6))).width == 8
    for url in ("http://x/a.png", "data:text/html;base64,AAAA", "data:image/png;base64,%%", ""):
        with pytest.raises(PictureError):
            store.take_url(url)


def test_what_is_added_can_be_opened(store):
    added = store.add(Image.new("RGB", (400, 20), "blue"))
    assert store.open(added).getpixel((5, 5)) == (0, 0, 255)


def test_old_files_are_swept_unless_they_are_used(store, png):
    old, used = store.take_bytes(png((8, 8))), store.take_bytes(png((300, 9)))
    saved = store.save("chat.json", b"{}")
    for path in (old.path, old.shown, used.path, saved):
        os.utime(path, (1, 1))
    store.read(used)
    assert store.sweep() == 3
    assert store.read(used)
    with pytest.raises(PictureError):
        store.read(old)
    with pytest.raises(PictureError):
        store.open(old)


def test_a_download_lies_where_nobody_guesses_it(store):
    first, second = store.save("chat.json", b"1"), store.save("chat.json", b"2")
    assert (first.name, first.read_bytes(), second.read_bytes()) == ("chat.json", b"1", b"2")
    assert len(first.parent.name) == 32


def test_a_decoder_that_reads_past_the_limit_of_pillow_is_a_refusal(store, png, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PictureError):
        store.take_bytes(png((64, 64)))
