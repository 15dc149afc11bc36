"""Pictures of requests: what is opened, and what is refused before it costs anything."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.pictures_in import PictureReader, decode_base64

reader = PictureReader(max_pixels=10_000)


def encoded(form="PNG", size=(5, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size, "blue").save(stream, format=form)
    return stream.getvalue()


def bomb(width, height):
    """A PNG of few bytes that says it has very many pixels."""

    def part(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_data_urls(form):
    packed = base64.b64encode(encoded(form)).decode()
    picture = reader.from_url(f"data:image/{form.lower()};base64,{packed}")
    assert (picture.size, picture.mode) == ((5, 3), "RGB")


def test_base64_is_read_as_people_write_it():
    data = encoded()
    plain = base64.b64encode(data).decode()
    broken_up = "\n".join(plain[start : start + 60] for start in range(0, len(plain), 60))
    for text in (
        plain,
        broken_up,
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        f"data:image/png;base64,{plain}",
    ):
        assert reader.from_base64(text).size == (5, 3)


@pytest.mark.parametrize("text", ["*", "äöü", "A", "AAA=AAA", "\0\0\0\0"])
def test_what_is_no_base64(text):
    with pytest.raises(ApiError, match="no base64") as caught:
        decode_base64(text)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data:",
        "data:image/png,AAAA",
        "data:text/html;base64,AAAA",
        "data:image/png;base64",
        "data:" + "x" * 1000 + ";base64,AAAA",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://host/a.png",
    ],
)
def test_what_is_no_picture_address(url):
    with pytest.raises(ApiError, match="data URL"):
        reader.from_url(url)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "http://127.0.0.1/", "HTTPS://x/"])
def test_addresses_are_not_fetched_unless_allowed(url):
    with pytest.raises(ApiError, match="fetches none"):
        reader.from_url(url)


def test_addresses_are_fetched_where_somebody_says_how():
    asked = []

    def fetch(url):
        asked.append(url)
        return encoded()

    fetching = PictureReader(max_pixels=100, fetch=fetch)
    assert fetching.from_url("https://example.org/a.png").size == (5, 3)
    assert asked == ["https://example.org/a.png"]


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", encoded()[:40], encoded("JPEG")[:-60], b"%PDF-1.4", b"<svg/>"]
)
def test_broken_pictures(data):
    with pytest.raises(ApiError) as caught:
        reader.from_bytes(data)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")


@pytest.mark.parametrize(
    "data", [bomb(50_000, 50_000), bomb(2**31 - 1, 2), encoded(size=(101, 100))]
)
def test_pictures_with_too_many_pixels_are_not_decoded(data):
    with pytest.raises(ApiError) as caught:
        reader.from_bytes(data)
    assert caught.value.status == 400
