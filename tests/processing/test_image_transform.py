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

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import (
    open_picture,
    resize,
    stretch,
    to_picture,
    to_tensor,
)


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
    with pytest.raises(DataError, match=r"100x50 .* at most 4999 pixels"):
        open_picture(data, max_pixels=4999)


def test_a_decompression_bomb_is_refused(monkeypatch):
    data = encode(Image.new("RGB", (100, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too many pixels"):
        open_picture(data)


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
    assert out.startswith("DataError A picture of 10000x10001 was given")
    assert err == ""
