"""A picture gets the extension of its bytes; what training cannot read becomes PNG."""

import io

import pytest
from PIL import Image

from mllm_npu.data.convert.stored_picture import sniff, store_picture
from mllm_npu.errors import SkipSample


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_known_formats_keep_their_bytes(picture, kind, extension):
    data = picture(kind)
    stored = store_picture(data)
    assert (stored.extension, stored.data) == (extension, data)
    assert sniff(data) == extension


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM"])
def test_other_formats_become_png_of_the_same_picture(picture, kind):
    stored = store_picture(picture(kind, color=(0, 0, 0)))
    assert stored.extension == "png"
    with Image.open(io.BytesIO(stored.data)) as opened:
        assert opened.size == (6, 5)
        assert opened.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not a picture: begins with b'<html>no'"),
        (b"\xff\xd8\xff\xe0 and then nothing", "header broken"),
        (b"\x89PNG\r\n\x1a\n", "header broken"),
        (b"RIFF\0\0\0\0WEBPjunk", "header broken"),
    ],
)
def test_what_is_no_picture_is_refused(data, reason):
    with pytest.raises(SkipSample, match=reason):
        store_picture(data)


def test_a_file_of_absurd_size_is_refused(monkeypatch, picture):
    monkeypatch.setattr("mllm_npu.data.convert.stored_picture.MAX_BYTES", 10)
    with pytest.raises(SkipSample, match="too large"):
        store_picture(picture())
