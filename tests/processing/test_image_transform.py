"""Pictures of every kind open as people see them; broken and huge ones are refused."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.errors import DataError, PictureTooLargeError
from mllm_npu.processing.image_transform import (
    open_picture,
    read_orientation,
    read_size,
    resize,
    stretch,
    to_picture,
    to_tensor,
)
from mllm_npu.processing.raster import Raster


def encode(image, **how):
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **how})
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_open_unchanged(picture, form):
    image = picture(9, 5)
    opened = open_picture(encode(image, format=form, lossless=True))
    assert opened.mode == "RGB"
    assert opened.tobytes() == image.tobytes()


def test_a_path_opens_as_its_bytes_do(picture, tmp_path):
    file = tmp_path / "picture.png"
    picture(4, 4).save(file)
    assert open_picture(file).tobytes() == open_picture(file.read_bytes()).tobytes()
    assert open_picture(str(file)).tobytes() == open_picture(file).tobytes()


def test_a_photo_is_turned_upright(picture):
    image, exif = picture(16, 8), Image.Exif()
    exif[0x0112] = 6
    opened = open_picture(encode(image, format="PNG", exif=exif))
    assert opened.size == (8, 16)
    assert opened.tobytes() == image.rotate(-90, expand=True).tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    image = Image.new("RGB", (4, 4), "white").convert(mode)
    opened = open_picture(encode(image, format="TIFF"))
    assert opened.mode == "RGB"
    assert min(opened.getpixel((1, 1))) >= 254


def test_transparent_pixels_are_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    opened = open_picture(encode(image))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


def test_a_transparent_palette_is_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    opened = open_picture(encode(image, transparency=0))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (200, 100, 50)


def test_sixteen_bit_grey_keeps_its_shades():
    shades = np.array([[0, 257 * 64, 257 * 128, 65535]], dtype=np.uint16)
    opened = open_picture(encode(Image.fromarray(shades)))
    assert np.array(opened)[0, :, 0].tolist() == [0, 64, 128, 255]


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encode(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data).getpixel((1, 1))[0] > 200


def test_a_large_picture_is_refused_before_it_is_decoded():
    data = encode(Image.new("RGB", (100, 50)))
    assert open_picture(data, max_pixels=5000).size == (100, 50)
    with pytest.raises(PictureTooLargeError, match=r"100x50 .* at most 4999 pixels"):
        open_picture(data, max_pixels=4999)


def test_a_decompression_bomb_is_refused(monkeypatch):
    """Pillow refuses from twice its own limit on, before its size is known here."""
    data = encode(Image.new("RGB", (100, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PictureTooLargeError, match=rf"in the {len(data)} bytes: .*5000 pixels"):
        open_picture(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_head_tells_size_and_orientation(picture, form):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(picture(16, 8), format=form, exif=exif)
        assert read_size(data) == open_picture(data).size
        assert read_orientation(data) == (1 if form == "TIFF" else orientation)
    plain = encode(picture(16, 8), format=form)
    assert (read_orientation(plain), read_size(plain)) == (1, (16, 8))


def test_an_orientation_that_is_none_is_upright(picture):
    exif = Image.Exif()
    exif[0x0112] = 42
    data = encode(picture(16, 8), format="JPEG", exif=exif)
    assert (read_orientation(data), read_size(data)) == (1, (16, 8))


def test_a_head_is_enough_and_nothing_is_not(picture):
    data = encode(picture(300, 200), format="JPEG")
    assert read_size(data[:1000]) == (300, 200)
    for broken in (b"", b"rubbish", data[:20]):
        for read in (read_size, read_orientation):
            with pytest.raises(DataError, match=f"head of {len(broken)} bytes"):
                read(broken)


def test_broken_files_are_refused(picture):
    whole = encode(picture(64, 64), format="JPEG")
    damaged = bytearray(encode(picture(64, 64)))
    damaged[60:80] = bytes(20)
    for data in (b"", b"no picture at all", whole[: len(whole) // 2], bytes(damaged)):
        with pytest.raises(DataError, match=f"{len(data)} bytes cannot be decoded"):
            open_picture(data)


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"'/nowhere/cat\.png'"):
        open_picture("/nowhere/cat.png")


def test_formats_that_run_programs_are_refused():
    with pytest.raises(DataError, match="cannot be decoded"):
        open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_pixels_go_there_and_back(picture):
    image = picture(7, 5)
    pixels = to_tensor(image)
    assert pixels.shape == (3, 5, 7)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 2, 6].tolist() == list(image.getpixel((6, 2)))
    assert to_picture(pixels).tobytes() == image.tobytes()
    assert to_tensor(image.convert("L")).shape == (3, 5, 7)


@pytest.mark.parametrize("size", [(6, 20), (30, 11), 16])
def test_stretching_is_pillows_bicubic(picture, size):
    image = picture(17, 23)
    height, width = (size, size) if isinstance(size, int) else size
    expected = to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    assert torch.equal(stretch(image, size), expected)
    fast = stretch(image, size, exact=False)
    assert fast.shape == expected.shape
    assert (fast.int() - expected.int()).abs().max() <= 2


def test_a_size_that_fits_is_left_alone(picture):
    pixels = to_tensor(picture(8, 8))
    assert resize(pixels, 8) is pixels
    assert torch.equal(stretch(picture(8, 8), 8), pixels)


def test_a_stack_is_resized_as_its_pictures_are(picture):
    pixels = torch.stack([to_tensor(picture(9, 9)), to_tensor(picture(9, 9)).flip(2)])
    both = resize(pixels, (4, 6))
    assert both.shape == (2, 3, 4, 6)
    assert torch.equal(both[1], resize(pixels[1], (4, 6)))


@pytest.mark.parametrize("size", [(4, 6), (20, 31), (9, 9), 5, (9, 3), (1, 2)])
def test_rows_of_triples_are_resized_as_planes_are(picture, size):
    triples = to_tensor(picture(9, 9))
    planes = triples.contiguous()
    assert planes.stride() != triples.stride()
    first, second = resize(triples, size), resize(planes, size)
    assert torch.equal(first, second)
    assert first.permute(1, 2, 0).is_contiguous()
    assert second.is_contiguous()
    both = torch.stack([planes, planes.flip(2)])
    stacked = both.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(resize(stacked, size), resize(both, size))


def place(size, order):
    """Memory for a picture of that size, as planes or as rows of triples, filled with a shade."""
    height, width = size
    if order == "planes":
        return torch.full((3, height, width), 7, dtype=torch.uint8)
    return torch.full((height, width, 3), 7, dtype=torch.uint8).permute(2, 0, 1)


# From planes to triples is below, in a process of its own.
ORDERS = [("planes", "planes"), ("triples", "triples"), ("triples", "planes")]


@pytest.mark.parametrize("size", [(4, 6), (20, 31), (9, 9), (9, 4), (4, 9), (1, 2)])
@pytest.mark.parametrize(("given", "order"), ORDERS)
@pytest.mark.parametrize("source", [(9, 9), (1, 13), (13, 1), (1, 1), (40, 3)])
def test_a_resized_picture_goes_where_it_is_told(picture, size, given, order, source):
    pixels = to_tensor(picture(*source))
    pixels = pixels.contiguous() if given == "planes" else pixels
    out = place(size, order)
    given_back = resize(pixels, size, out=out)
    assert (given_back.data_ptr(), given_back.shape) == (out.data_ptr(), out.shape)
    assert torch.equal(out, resize(pixels, size))
    stack, both = torch.stack([pixels, pixels.flip(1)]), torch.stack([place(size, order)] * 2)
    if given == "triples":
        stack = stack.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    if order == "triples":
        both = both.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert resize(stack, size, out=both).data_ptr() == both.data_ptr()
    assert torch.equal(both, resize(stack, size))


def test_planes_go_to_a_place_of_triples_without_harm():
    """torch itself writes beyond the place, or fails an assertion; so not in this process."""
    program = (
        "import torch\n"
        "from mllm_npu.processing.image_transform import resize\n"
        "for size in ((4, 6), (20, 31), (9, 9), (9, 4), (4, 9)):\n"
        "    planes = torch.arange(243, dtype=torch.uint8).view(3, 9, 9)\n"
        "    memory = torch.full((3, *size, 3), 7, dtype=torch.uint8).permute(0, 3, 1, 2)\n"
        "    resize(planes, size, out=memory[1])\n"
        "    assert torch.equal(memory[1], resize(planes, size)), size\n"
        "    assert int(memory[0].min()) == int(memory[2].max()) == 7, size\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(4, 6), (20, 31), (9, 9), (9, 4), (1, 1)])
@pytest.mark.parametrize("order", ["planes", "triples"])
@pytest.mark.parametrize("source", [(9, 9), (1, 13), (13, 1), (1, 1)])
def test_a_stretched_picture_goes_where_it_is_told(picture, exact, size, order, source):
    image = picture(*source)
    expected = stretch(image, size, exact=exact)
    for given in (image, Raster(np.array(image))):
        out = place(size, order)[None]
        stretched = stretch(given, size, exact=exact, out=out)
        assert (stretched.data_ptr(), stretched.shape) == (out.data_ptr(), (3, *size))
        assert torch.equal(out[0], expected)
        assert torch.equal(stretch(given, size, exact=exact), expected)


@pytest.mark.parametrize("exact", [True, False])
def test_a_place_inside_larger_memory_leaves_its_neighbours_alone(picture, exact):
    for given in (picture(20, 13), Raster(np.array(picture(20, 13)))):
        tiles = torch.full((3, 8, 8, 3), 7, dtype=torch.uint8).permute(0, 3, 1, 2)
        stretch(given, 8, exact=exact, out=tiles[1:2])
        assert torch.equal(tiles[1], stretch(given, 8, exact=exact))
        assert {int(tiles[0].min()), int(tiles[2].max())} == {7}


def test_a_stretched_picture_is_rows_of_triples(picture):
    for exact in (True, False):
        for size in ((4, 6), (9, 9)):
            stretched = stretch(picture(9, 9), size, exact=exact)
            assert stretched.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "1"])
def test_other_modes_are_stretched_as_rgb(picture, mode):
    image = picture(9, 9).convert(mode)
    for exact in (True, False):
        assert stretch(image, (5, 4), exact=exact).shape == (3, 5, 4)
    assert torch.equal(stretch(image, 9), to_tensor(image))


def test_a_large_header_gives_one_message_and_no_warning(capfd, tmp_path):
    """Pillow warns of such a size by itself; the refusal alone must reach the user."""
    header = encode(Image.new("RGB", (1, 1)))
    size = struct.pack(">II", 10_000, 10_001)
    chunk = b"IHDR" + size + header[24:29]
    data = header[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + header[33:]
    (tmp_path / "bomb.png").write_bytes(data)
    command = (
        "from mllm_npu.processing.image_transform import open_picture\n"
        "try:\n    open_picture('bomb.png')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    subprocess.run([sys.executable, "-c", command], check=True, cwd=tmp_path)
    out, err = capfd.readouterr()
    assert out.startswith("PictureTooLargeError A picture of 10000x10001 was given")
    assert err == ""
