import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.row import is_picture_name, measure_picture
from mllm_npu.errors import DataError, SkipSample
from mllm_npu.processing.image_transform import open_picture
from mllm_npu.processing.jpeg import decode_picture
from mllm_npu.processing.raster import Raster, StoredPicture, decoded, to_pillow


@pytest.fixture
def encode():
    def encode(kind, size):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, kind)
        return buffer.getvalue()

    return encode


def test_reads_json_text_and_pictures(make_row, png):
    row = make_row(json_member={"a": 1}, txt=b" hello \n", png=png(20, 10))
    assert row.json() == {"a": 1}
    assert row.text() == "hello"
    assert row.picture().size == row.picture_size() == (20, 10)
    assert row.picture().mode == "RGB"


def test_picture_by_name_and_in_shard_order(make_row, png):
    row = make_row(json_member={}, _0__png=png(8, 8), _1__jpg=png(9, 9))
    assert row.picture_names() == ["0.png", "1.jpg"]
    assert row.picture("1.jpg").size == (9, 9)
    assert row.picture().size == (8, 8)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "json member missing"),
        ({"json": b"{"}, "json member broken"),
        ({"json": b"[1]"}, "json member is not an object"),
        ({"json": b"\xff\xfe"}, "json member broken"),
        ({"json": b"[" * 100_000}, "json member broken"),
    ],
)
def test_broken_json_is_skipped_with_a_reason(make_row, members, reason):
    with pytest.raises(SkipSample, match=reason):
        make_row(**members).json()


def test_missing_or_broken_text_is_skipped(make_row):
    with pytest.raises(SkipSample, match="txt member missing"):
        make_row().text()
    with pytest.raises(SkipSample, match="not UTF-8"):
        make_row(txt=b"\xff").text()


def test_missing_or_broken_pictures_are_skipped_under_one_reason(make_row, png):
    with pytest.raises(SkipSample, match="picture missing"):
        make_row().picture()
    with pytest.raises(SkipSample, match="picture missing"):
        make_row(png=png()).picture("../secret.png")
    for broken in (b"", b"no picture", png()[:40]):
        with pytest.raises(SkipSample, match=r"^picture cannot be read$"):
            make_row(png=broken).picture()


def test_a_rendered_picture_stands_for_a_member(make_row):
    row = make_row(json_member={})
    drawn = Image.new("RGB", (5, 4))
    rendered = type(row)(key="k", members=row.members, rendered={"0.png": drawn})
    assert rendered.picture() is drawn
    assert rendered.picture_size("0.png") == (5, 4)
    assert rendered.picture_names() == ["0.png"]


def test_kept_pictures_are_decoded_once(make_row, png):
    row = make_row(_0__png=png(), _1__png=b"broken")
    assert row.picture("0.png") is not row.picture("0.png")
    keeping = type(row)(key="k", members=row.members, kept={})
    assert keeping.picture("0.png") is keeping.picture()
    with pytest.raises(SkipSample):
        keeping.picture("1.png")
    assert set(keeping.kept) == {"0.png"}


def test_a_jpeg_is_decoded_when_its_pixels_are_needed(make_row, encode):
    data = encode("JPEG", (20, 10))
    row = make_row(jpg=data)
    picture = row.picture()
    assert isinstance(picture, StoredPicture)
    assert picture.size == row.picture_size() == (20, 10)
    assert to_pillow(picture).tobytes() == open_picture(data).tobytes()


def test_a_broken_jpeg_shows_when_its_pixels_are_needed(make_row, encode):
    data = encode("JPEG", (60, 50))
    row = make_row(jpg=data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be decoded"):
        decoded(row.picture())
    with pytest.raises(SkipSample, match=r"^picture cannot be read$"):
        replace(row, kept={}).picture()


def test_kept_pictures_have_their_pixels(make_row, encode):
    row = replace(make_row(jpg=encode("JPEG", (20, 10))), kept={})
    assert isinstance(row.picture(), Raster)
    assert row.picture() is row.kept["jpg"]


def test_pictures_are_decoded_as_the_row_is_told(make_row, png):
    told = []
    row = replace(make_row(png=png()), decode=lambda data: told.append(data) or "pixels")
    assert row.picture() == "pixels"
    assert told == [row.members["png"]]


def test_a_picture_with_too_many_pixels_has_a_reason_of_its_own(make_row, png):
    row = replace(make_row(png=png()), decode=lambda data: decode_picture(data, max_pixels=255))
    with pytest.raises(SkipSample, match=r"^picture has too many pixels$"):
        row.picture()
    assert row.picture_size() == (16, 16)


def test_rows_are_equal_by_what_they_hold(make_row, png):
    first, second = make_row(png=png()), make_row(png=png())
    first.picture()
    assert first == second == replace(first, kept={}, decode=open_picture)
    assert first != make_row(png=png(17, 17))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_size_is_measured_without_decoding(encode, kind):
    assert measure_picture(encode(kind, (33, 17))) == (33, 17)
    with pytest.raises(SkipSample):
        measure_picture(b"not a picture at all")


def test_picture_names_are_told_by_their_last_extension():
    assert is_picture_name("png")
    assert is_picture_name("0.JPG")
    assert not is_picture_name("png.json")
