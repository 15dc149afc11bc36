"""Small copies by content, once each."""

import io

import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.picture_shelf import PictureShelf, encode_small, is_copy
from mllm_npu.processing.raster import StoredPicture


def test_a_few_pixels_stay_as_they_are(fakes):
    data, suffix = encode_small(fakes.noise_picture(1, (128, 128)))
    assert suffix == "png"
    assert Image.open(io.BytesIO(data)).tobytes() == fakes.noise_picture(1, (128, 128)).tobytes()


@pytest.mark.parametrize(
    ("size", "small"), [((200, 100), (200, 100)), ((1024, 512), (256, 128)), ((4000, 8), (256, 1))]
)
def test_many_pixels_become_few(fakes, size, small):
    data, suffix = encode_small(fakes.noise_picture(1, size))
    assert (suffix, Image.open(io.BytesIO(data)).size) == ("jpg", small)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_can_be_shown(mode):
    for size in ((4, 4), (300, 300)):
        data, _ = encode_small(Image.new(mode, size))
        assert Image.open(io.BytesIO(data)).mode == "RGB"


def test_equal_pictures_are_kept_once(fakes, tmp_path):
    shelf = PictureShelf(tmp_path / "pictures")
    first, again = (shelf.keep(fakes.noise_picture(1)) for _ in range(2))
    other = shelf.keep(fakes.noise_picture(2))
    assert first == again != other
    assert sorted(path.name for path in shelf.folder.iterdir()) == sorted([first, other])
    assert Image.open(shelf.folder / first).tobytes() == fakes.noise_picture(1).tobytes()
    assert PictureShelf(tmp_path / "elsewhere").keep(fakes.noise_picture(1)) == first


def test_what_was_kept_before_and_is_not_now_goes_and_nothing_else(fakes, tmp_path):
    before = PictureShelf(tmp_path)
    old, both = (before.keep(fakes.noise_picture(seed)) for seed in (1, 2))
    (tmp_path / "holiday.jpg").touch()
    now = PictureShelf(tmp_path)
    assert now.keep(fakes.noise_picture(2)) == both
    now.drop_others()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([both, "holiday.jpg"])
    assert old != both
    PictureShelf(tmp_path / "none").drop_others()


def test_a_broken_picture_has_no_copy(tmp_path):
    def fail(data):
        raise DataError("no picture")

    shelf = PictureShelf(tmp_path / "pictures")
    assert shelf.keep(StoredPicture(data=b"x", size=(1, 1), decoder=fail)) is None
    assert not shelf.folder.exists()


def test_a_place_that_cannot_be_written_is_told(fakes, tmp_path):
    (tmp_path / "pictures").touch()
    with pytest.raises(DataError, match=r"The picture .*pictures.* cannot be written"):
        PictureShelf(tmp_path / "pictures").keep(fakes.noise_picture(1))


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("0123456789abcdef01234567.png", True),
        ("0123456789abcdef01234567.jpg", True),
        ("0123456789abcdef01234567.gif", False),
        ("../0123456789abcdef01234567.png", False),
        ("0123456789abcdef01234567.png.partial", False),
        ("holiday.jpg", False),
    ],
)
def test_names_of_copies_are_known(name, fits):
    assert is_copy(name) is fits
