from pathlib import Path

import pytest
from PIL import Image

from mllm_npu.errors import DataError, RequestError
from mllm_npu.inference.picture_files import (
    check_folder,
    check_name,
    open_pictures,
    save_boxes,
    save_picture,
    save_pictures,
)
from mllm_npu.processing.grounding import Box

RED = Image.new("RGB", (5, 4), "red")


def test_pictures_open_in_order(tmp_path):
    paths = save_pictures([RED, RED.resize((7, 7))], tmp_path / "a.png")
    assert [picture.size for picture in open_pictures(paths)] == [(5, 4), (7, 7)]
    assert open_pictures([]) == []


def test_what_is_no_picture_file_is_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png"):
        open_pictures([tmp_path / "text.png"])
    with pytest.raises(RequestError, match=r"gone\.png was asked for and is not there"):
        open_pictures([tmp_path / "gone.png"])
    with pytest.raises(RequestError, match="is a folder"):
        open_pictures([tmp_path])


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.jpeg", "deep/er/d.webp"])
def test_a_picture_is_saved_whole(tmp_path, name):
    check_name(tmp_path / name)
    path = save_picture(RED, tmp_path / name)
    assert open_pictures([path])[0].size == (5, 4)
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == [path.name]


@pytest.mark.parametrize("name", ["a.txt", "a", "", "a.gif"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(RequestError, match="picture ending"):
        check_name(tmp_path / name)


def test_a_folder_is_no_name(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        check_name(tmp_path / "x.png")


def test_a_place_that_cannot_be_written_is_refused_before_and_while_saving(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RequestError, match="file cannot be written"):
        check_name(blocked / "deep" / "a.png")
    with pytest.raises(RequestError, match="file cannot be written"):
        check_folder(blocked)
    with pytest.raises(RequestError, match="cannot be saved"):
        save_picture(RED, blocked / "a.png")
    check_folder(tmp_path / "not" / "made" / "yet")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_relative_name_lies_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_name(Path("a.png"))
    save_picture(RED, Path("a.png"))
    assert (tmp_path / "a.png").is_file()


def test_a_disk_that_fails_leaves_no_half_picture(tmp_path, monkeypatch):
    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(RequestError, match="No space left"):
        save_picture(RED, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_boxes_are_marked_on_the_last_picture(tmp_path):
    pictures = [Image.new("RGB", (40, 40), shade) for shade in ("white", "grey")]
    box = Box(x0=0.25, y0=0.25, x1=0.75, y1=0.75, label="a")
    assert save_boxes(pictures, [], tmp_path / "p.png") is None
    assert save_boxes([], [box], tmp_path / "p.png") is None
    marked = save_boxes(pictures, [box], tmp_path / "p.png")
    assert marked == tmp_path / "p-boxes.png"
    with Image.open(marked) as opened:
        assert opened.getpixel((1, 39)) == (128, 128, 128)
        assert opened.getpixel((10, 20)) != (128, 128, 128)
