"""Pictures of rows are decoded to the very pixels that Pillow gives, quickly or not."""

import io
import pickle
import random
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from mllm_npu.errors import DataError, PictureTooLargeError
from mllm_npu.processing import jpeg
from mllm_npu.processing.image_transform import MAX_PIXELS, open_picture
from mllm_npu.processing.jpeg import decode_picture, store_picture
from mllm_npu.processing.raster import Raster, StoredPicture, decoded, to_pillow

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.fixture(params=["quick", "Pillow alone"], autouse=True)
def quick(request, monkeypatch):
    """Every test runs with the quick decoder and without it."""
    if request.param == "quick":
        pytest.importorskip("simplejpeg")
        return True
    monkeypatch.setattr(jpeg, "_HAS_QUICK_DECODER", False)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    return False


def photo(width=45, height=31, mode="RGB"):
    """Soft shades with some noise, as photos have."""
    across, down = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    shades = np.stack([np.sin(across), np.cos(down), np.sin(across * down)], axis=-1) * 100 + 128
    noise = np.random.default_rng(1).normal(0, 9, shades.shape)
    return Image.fromarray((shades + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def encode(image=None, kind="JPEG", **how):
    stream = io.BytesIO()
    (image or photo()).save(stream, kind, **how)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def described():
    """EXIF notes that say nothing of which way is up."""
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    return exif.tobytes()


def with_fill_bytes(data):
    """Any marker may be preceded by fill bytes (ITU T.81, B.1.1.2)."""
    place = data.index(b"Exif") - 4
    return data[:place] + b"\xff" + data[place:]


PLAIN = {
    "RGB": encode(),
    "best": encode(quality=100),
    "worst": encode(quality=3),
    "grey": encode(photo(mode="L")),
    "progressive": encode(progressive=True),
    "progressive grey": encode(photo(mode="L"), progressive=True),
    "RGB colours": encode(keep_rgb=True, quality=90),
    "optimised": encode(optimize=True),
    "restart markers": encode(restart_marker_blocks=1),
    **{f"subsampled {n}": encode(subsampling=n) for n in range(3)},
    **{f"{w}x{h}": encode(photo(w, h)) for w, h in [(1, 1), (1, 40), (16, 1), (17, 33), (8, 8)]},
    "ICC profile": encode(icc_profile=bytes(100_000)),
    "comment": encode(comment=b"Exif\0\0 is not what this is"),
    "EXIF upright": encode(exif=turned(1)),
    "EXIF description": encode(exif=described()),
    "EXIF nonsense": encode(exif=turned(11)),
    "bytes behind the end": encode() + b"more of them",
}
LEFT_TO_PILLOW = {
    **{f"EXIF {n}": encode(exif=turned(n)) for n in range(2, 9)},
    "EXIF progressive": encode(exif=turned(6), progressive=True),
    "EXIF behind ICC": encode(exif=turned(6), icc_profile=bytes(100_000)),
    "EXIF behind fill bytes": with_fill_bytes(encode(exif=turned(6))),
    "XMP": encode(xmp=XMP),
    "CMYK": encode(photo(mode="CMYK")),
    "CMYK turned": encode(photo(mode="CMYK"), exif=turned(8)),
    "PNG": encode(kind="PNG"),
    "PNG grey": encode(photo(mode="L"), kind="PNG"),
    "PNG 16 bit": encode(Image.fromarray(np.arange(0, 65536, 256, np.uint16)[None]), kind="PNG"),
    "PNG palette": encode(photo(mode="P"), kind="PNG"),
    "PNG transparent": encode(photo(mode="RGBA"), kind="PNG"),
    "PNG turned": encode(kind="PNG", exif=turned(6)),
    "GIF": encode(kind="GIF", save_all=True, append_images=[photo().rotate(90)]),
    "WEBP": encode(kind="WEBP"),
    "WEBP animated": encode(kind="WEBP", save_all=True, append_images=[photo().rotate(90)]),
    "WEBP turned": encode(kind="WEBP", exif=turned(6)),
    "BMP": encode(kind="BMP"),
    "TIFF": encode(kind="TIFF"),
}


def pixels(picture):
    return np.asarray(to_pillow(picture))


def assert_decoded_as_pillow_does(data, **limits):
    expected = np.asarray(open_picture(data, **limits))
    found = pixels(decode_picture(data, **limits))
    assert (found.shape, found.dtype) == (expected.shape, np.uint8)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpegs_are_equal_to_the_bit(name, quick):
    assert_decoded_as_pillow_does(PLAIN[name])
    assert isinstance(decode_picture(PLAIN[name]), Raster) == quick


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_everything_else_is_pillows(name):
    assert_decoded_as_pillow_does(LEFT_TO_PILLOW[name])


def test_the_cases_are_what_they_are_called():
    assert {open_picture(LEFT_TO_PILLOW[f"EXIF {n}"]).size for n in range(5, 9)} == {(31, 45)}
    for name in ("XMP", "EXIF behind fill bytes", "EXIF behind ICC", "WEBP turned", "PNG turned"):
        assert open_picture(LEFT_TO_PILLOW[name]).size == (31, 45), name
    with Image.open(io.BytesIO(LEFT_TO_PILLOW["CMYK"])) as opened:
        assert opened.mode == "CMYK"
    with Image.open(io.BytesIO(LEFT_TO_PILLOW["GIF"])) as opened:
        assert opened.n_frames == 2
    with Image.open(io.BytesIO(PLAIN["progressive"])) as opened:
        assert opened.info["progressive"]


@pytest.mark.parametrize("name", [*PLAIN, *LEFT_TO_PILLOW])
def test_a_stored_picture_gives_size_and_pixels(name, quick):
    data = {**PLAIN, **LEFT_TO_PILLOW}[name]
    stored = store_picture(data)
    assert isinstance(stored, StoredPicture) == (quick and name in PLAIN)
    assert stored.size == open_picture(data).size
    assert np.array_equal(pixels(stored), np.asarray(open_picture(data)))
    assert pickle.loads(pickle.dumps(stored)).size == stored.size


@pytest.mark.parametrize("name", ["RGB", "progressive", "CMYK", "EXIF 6", "PNG"])
def test_what_cannot_be_decoded_shows_at_the_latest_with_its_pixels(name):
    data = {**PLAIN, **LEFT_TO_PILLOW}[name]
    for cut in (3, 20, len(data) // 2):
        with pytest.raises(DataError, match="cannot be decoded"):
            decoded(store_picture(data[:cut]))
    with pytest.raises(PictureTooLargeError):
        store_picture(data, max_pixels=45 * 31 - 1)


# Pillow warns of notes that lead beyond their end, besides.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["RGB", "progressive", "EXIF description", "EXIF 6"])
def test_damaged_bytes_keep_the_size_that_was_told(name):
    """Tokens are laid out by that size before the pixels are there."""
    data, rng = {**PLAIN, **LEFT_TO_PILLOW}[name], random.Random(name)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(2, min(700, len(data)))] ^= 1 << rng.randrange(8)
        try:
            stored = store_picture(bytes(damaged))
            size = pixels(stored).shape[1::-1]
        except DataError:
            continue
        assert stored.size == size


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_every_way_to_store_colours_is_equal(subsampling, quick):
    if not quick:
        pytest.skip("only the quick decoder's own encoder writes all of them")
    import simplejpeg

    data = simplejpeg.encode_jpeg(np.array(photo()), colorsubsampling=subsampling, quality=80)
    assert_decoded_as_pillow_does(data)
    assert isinstance(decode_picture(data), Raster)


@pytest.mark.parametrize("name", ["RGB", "progressive", "grey", "restart markers"])
def test_a_truncated_jpeg_is_refused_wherever_it_was_cut(name):
    data = PLAIN[name]
    cuts = [0, 1, 2, 3, 20, 100, *range(200, len(data) - 2, max(len(data) // 17, 1)), len(data) - 4]
    for cut in cuts:
        with pytest.raises(DataError, match="cannot be decoded"):
            open_picture(data[:cut])
        with pytest.raises(DataError, match=f"{cut} bytes cannot be decoded"):
            decode_picture(data[:cut])


def outcome(decode, data):
    try:
        return pixels(decode(data)).tobytes()
    except DataError:
        return None


# Pillow warns of notes that lead beyond their end, besides.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["RGB", "progressive", "grey", "EXIF description", "EXIF 6"])
def test_flipped_bytes_give_a_refusal_or_pillows_pixels(name):
    data, rng = {**PLAIN, **LEFT_TO_PILLOW}[name], random.Random(name)
    refused = 0
    for _ in range(250):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 3])):
            # As often in the head as in the pixels.
            end = rng.choice([min(700, len(data)), len(data)])
            damaged[rng.randrange(2, end)] ^= 1 << rng.randrange(8)
        found = outcome(decode_picture, bytes(damaged))
        assert found == outcome(open_picture, bytes(damaged))
        refused += found is None
    assert 5 < refused < 245


def test_rubbish_behind_the_signature_is_refused():
    for data in (b"\xff\xd8\xff", b"\xff\xd8\xff" + bytes(500), b"\xff\xd8" + b"\xff" * 300, b""):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode_picture(data)


def png_bomb():
    data = encode(photo(1, 1), kind="PNG")
    head = b"IHDR" + struct.pack(">II", 9000, 9001) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def jpeg_bomb(width, height):
    data = bytearray(PLAIN["RGB"])
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [png_bomb(), jpeg_bomb(9000, 9001), jpeg_bomb(65000, 65000)],
    ids=["PNG", "JPEG", "huge"],
)
def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(data, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    for decode in (decode_picture, open_picture):
        with pytest.raises(PictureTooLargeError):
            decode(data)


@pytest.mark.parametrize("name", ["RGB", "grey", "EXIF 6", "PNG", "CMYK"])
def test_the_limit_is_the_same_for_all(name):
    data = {**PLAIN, **LEFT_TO_PILLOW}[name]
    assert_decoded_as_pillow_does(data, max_pixels=45 * 31)
    for decode in (decode_picture, open_picture):
        with pytest.raises(PictureTooLargeError, match=f"at most {45 * 31 - 1} pixels"):
            decode(data, max_pixels=45 * 31 - 1)


def test_twenty_megapixels_are_decoded():
    assert MAX_PIXELS > 5000 * 4000
    shades = np.add.outer(np.arange(4000), np.arange(5000)).astype(np.uint8)
    assert_decoded_as_pillow_does(encode(Image.fromarray(shades).convert("RGB")))


def test_photos_are_equal_to_the_bit(shared, quick):
    files = sorted((shared / "data" / "photos").glob("*.JPEG"))[:40]
    assert len(files) == 40
    num_rasters = 0
    for file in files:
        data = file.read_bytes()
        assert_decoded_as_pillow_does(data)
        num_rasters += isinstance(decode_picture(data), Raster)
    assert (num_rasters > 30) == quick
