"""The size in an index is that of the decoded picture, however the file says which way is up."""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, WebPImagePlugin

from mllm_npu.data.index import build_index
from mllm_npu.data.row import measure_picture
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import PictureTooLargeError
from mllm_npu.processing.image_transform import open_picture
from mllm_npu.processing.jpeg import decode_picture

ORIENTATION = 0x0112
KINDS = ("JPEG", "PNG", "WEBP")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="%d"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def noise(width=31, height=17):
    """A picture that hardly compresses."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(kind, image=None, **how):
    buffer = io.BytesIO()
    (image or noise()).save(buffer, kind, **how)
    return buffer.getvalue()


def notes(orientation, extra=0):
    """EXIF with an orientation, and as many bytes more."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if extra:
        exif[0x927C] = bytes(extra)
    return exif.tobytes()


def chunk(kind, content):
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def png_with_late_notes(image, orientation):
    """The EXIF chunk may stand behind the pixels."""
    data = encode("PNG", image)
    return data[:-12] + chunk(b"eXIf", notes(orientation).removeprefix(b"Exif\0\0")) + data[-12:]


def png_with_text_notes(orientation):
    """EXIF as ImageMagick writes it, and as Pillow reads it."""
    content = notes(orientation)
    info = PngImagePlugin.PngInfo()
    text = f"\nexif\n{len(content):8d}\n{content.hex()}\n"
    info.add_text("Raw profile type exif", text, zip=True)
    return encode("PNG", pnginfo=info)


def png_with_xmp(orientation):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
    return encode("PNG", pnginfo=info)


def png_with_words(image=None):
    """Text notes that say nothing of which way is up, as most programs leave."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a program")
    info.add_itxt("Comment", "größer", zip=True)
    return encode("PNG", image, pnginfo=info)


def jpeg_with_fill_bytes(orientation):
    """Any marker may be preceded by fill bytes (ITU T.81, B.1.1.2)."""
    data = encode("JPEG", exif=notes(orientation))
    place = data.index(b"Exif") - 4
    return data[:place] + b"\xff\xff" + data[place:]


CASES = {
    **{f"{kind} {n}": encode(kind, exif=notes(n)) for kind in KINDS for n in range(1, 9)},
    **{f"{kind} says nothing": encode(kind) for kind in KINDS},
    **{f"{kind} nonsense": encode(kind, exif=notes(9)) for kind in KINDS},
    **{f"{kind} large notes": encode(kind, exif=notes(6, 50_000)) for kind in KINDS},
    **{f"{kind} ICC": encode(kind, icc_profile=bytes(200_000)) for kind in KINDS},
    **{
        f"{kind} ICC and turned": encode(kind, exif=notes(8), icc_profile=bytes(200_000))
        for kind in KINDS
    },
    **{f"{kind} large": encode(kind, noise(250, 200), exif=notes(6)) for kind in KINDS},
    "JPEG progressive": encode("JPEG", noise(300, 200), exif=notes(6), progressive=True),
    "JPEG grey": encode("JPEG", noise().convert("L"), exif=notes(5)),
    "JPEG CMYK": encode("JPEG", noise().convert("CMYK"), exif=notes(7)),
    "JPEG XMP": encode("JPEG", xmp=XMP % 6),
    "JPEG EXIF before XMP": encode("JPEG", xmp=XMP % 6, exif=notes(1)),
    "JPEG fill bytes": jpeg_with_fill_bytes(6),
    "PNG XMP": png_with_xmp(6),
    "PNG words": png_with_words(),
    "PNG words, large": png_with_words(noise(200, 150)),
    "PNG text notes": png_with_text_notes(6),
    "PNG late notes": png_with_late_notes(noise(), 6),
    "PNG late notes, large": png_with_late_notes(noise(200, 150), 6),
    "PNG palette": encode("PNG", noise().convert("P"), exif=notes(6)),
    "PNG 16 bit": encode("PNG", Image.fromarray(np.zeros((9, 5), np.uint16))),
    "WEBP XMP": encode("WEBP", xmp=XMP % 6),
    "one pixel": encode("JPEG", noise(1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_measured_as_it_is_decoded(name):
    data = CASES[name]
    assert measure_picture(data) == decode_picture(data).size


def test_the_cases_are_turned_as_they_are_called():
    turned = {name for name, data in CASES.items() if open_picture(data).size == (17, 31)}
    assert {f"{kind} {n}" for kind in KINDS for n in range(5, 9)} <= turned
    assert not {f"{kind} {n}" for kind in KINDS for n in range(1, 5)} & turned
    assert {"JPEG XMP", "PNG XMP", "WEBP XMP", "PNG text notes", "JPEG fill bytes"} <= turned


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, make_row):
    """Width and height in the index by the name of the case."""
    path = tmp_path_factory.mktemp("sizes") / "a.tar"
    write_shard(path, [make_row(f"r{n}", png=data) for n, data in enumerate(CASES.values())])
    index = build_index(path)
    sizes = zip(index.width.tolist(), index.height.tolist(), strict=True)
    return dict(zip(CASES, sizes, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_an_index_holds_the_size_of_the_decoded_picture(indexed, name):
    assert indexed[name] == decode_picture(CASES[name]).size


def test_what_is_no_picture_has_no_size_in_the_index(tmp_path, make_row, png):
    data = encode("JPEG", noise(200, 200))
    rows = [make_row("a", _0__png=b"", _1__jpg=b"rubbish" * 9999, _2__png=png(), _3__jpg=data[:30])]
    write_shard(tmp_path / "a.tar", rows)
    index = build_index(tmp_path / "a.tar")
    assert index.width.tolist() == index.height.tolist() == [0, 0, 16, 0]


def bomb(width, height, *, words=False):
    """A small file that claims many pixels."""
    data = png_with_words(noise(1, 1)) if words else encode("PNG", noise(1, 1))
    header = chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29])
    return data[:8] + header + data[33:]


def jpeg_bomb(width, height):
    data = bytearray(encode("JPEG", noise(8, 8)))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


# Pillow itself refuses so much as to look at the last.
@pytest.mark.parametrize(
    ("make", "size", "measured"),
    [
        (bomb, (9_000, 9_001), (9_000, 9_001)),
        (bomb, (60_000, 60_001), (60_000, 60_001)),
        (partial(bomb, words=True), (9_000, 9_001), (9_000, 9_001)),
        (jpeg_bomb, (9_000, 9_001), (9_000, 9_001)),
        (jpeg_bomb, (60_000, 60_001), (0, 0)),
    ],
)
def test_huge_pictures_are_measured_without_decoding(
    tmp_path, make_row, monkeypatch, make, size, measured
):
    data = make(*size)
    with pytest.raises(PictureTooLargeError):
        decode_picture(data)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    write_shard(tmp_path / "a.tar", [make_row("a", png=data)])
    index = build_index(tmp_path / "a.tar")
    assert (int(index.width[0]), int(index.height[0])) == measured


@pytest.mark.parametrize(
    "name", [*(f"{kind} {n}" for kind in KINDS for n in (1, 6)), "PNG words", "PNG words, large"]
)
def test_measuring_never_decodes(monkeypatch, name):
    data = CASES[name]
    size = decode_picture(data).size
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", lambda *_: pytest.fail("decoded"))
    assert measure_picture(data) == size
