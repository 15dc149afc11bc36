import base64
import io
import zipfile

import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.answer_book import question_key
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.benchmark_pictures import (
    PictureFiles,
    picture_from_base64,
    picture_from_bytes,
    picture_from_cell,
)
from mllm_npu.evaluate.task import Example
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.processing.raster import to_pillow


def encoded(colour, size=(6, 4), form="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "release"
    for name, colour in {"a/1.png": "red", "b/1.png": "blue", "no_ending": "lime"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(colour))
    return root


@pytest.fixture
def zipped(folder, tmp_path):
    path = tmp_path / "release.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, f"release/{file.relative_to(folder)}")
    return path


def open_files(path):
    return PictureFiles(BenchmarkFiles(path, layout="a/1.png\nb/1.png"))


@pytest.mark.parametrize("form", ["folder", "zipped"])
def test_pictures_are_found_by_the_end_of_their_path(form, request):
    pictures = open_files(request.getfixturevalue(form))
    assert to_pillow(pictures.open("a/1.png", "row 1")).getpixel((0, 0)) == (255, 0, 0)
    assert to_pillow(pictures.open("b/1.png", "row 1")).getpixel((0, 0)) == (0, 0, 255)
    assert pictures.open("no_ending", "row 1").size == (6, 4)
    assert pictures.has("b/1.png")
    assert not pictures.has("c/1.png")
    assert not pictures.has("elease/b/1.png"), "half a name is no end of a path"


def test_the_pixels_are_read_when_they_are_asked_for(folder):
    picture = open_files(folder).open("a/1.png", "row 1")
    assert len(picture.data) < 100
    (folder / "a" / "1.png").write_bytes(encoded("yellow"))
    assert to_pillow(picture).getpixel((0, 0)) == (255, 255, 0)


def test_one_file_is_a_picture_too(tmp_path):
    path = tmp_path / "alone.jpg"
    path.write_bytes(encoded("red", form="JPEG"))
    assert open_files(path).open("alone.jpg", "row 1").size == (6, 4)


def test_answers_tell_two_pictures_apart(folder):
    pictures = open_files(folder)

    def key(name):
        conversation = ask("What is it?", [pictures.open(name, "row 1")])
        return question_key(
            Example(name="x", conversation=conversation, answer="", options=GenerationOptions())
        )

    assert key("a/1.png") != key("b/1.png")
    assert key("a/1.png") == key("a/1.png")


def test_a_size_that_stands_far_behind_is_found(tmp_path):
    picture, notes = Image.new("RGB", (30, 20), "red"), Image.Exif()
    notes[0x010E] = "x" * 60_000
    picture.save(tmp_path / "far.jpg", exif=notes, icc_profile=b"y" * 60_000)
    assert open_files(tmp_path).open("far.jpg", "row 1").size == (30, 20)


@pytest.mark.parametrize("form", ["folder", "zipped"])
def test_a_picture_that_is_missing_shows_the_tree(form, request):
    path = request.getfixturevalue(form)
    with pytest.raises(DataError, match=r"row 7 names c/1\.png, which is not there.*\na/1\.png"):
        open_files(path).open("c/1.png", "row 7")


def test_a_file_that_is_no_picture_names_its_row(folder):
    (folder / "a" / "1.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"row 7, a/1\.png: its picture cannot be read"):
        open_files(folder).open("a/1.png", "row 7")


def test_a_broken_picture_names_its_row_when_it_is_decoded(folder):
    data = encoded("red", (400, 300), "JPEG")
    (folder / "a" / "1.png").write_bytes(data[: len(data) // 2])
    picture = open_files(folder).open("a/1.png", "row 7")
    with pytest.raises(DataError, match=r"row 7, a/1\.png: its picture cannot be decoded"):
        to_pillow(picture)


def test_a_file_that_went_away_is_told(folder):
    picture = open_files(folder).open("a/1.png", "row 7")
    (folder / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"a/1\.png in .* cannot be read"):
        to_pillow(picture)


@pytest.mark.parametrize(
    "cell",
    [
        {"bytes": encoded("red"), "path": "x.png"},
        encoded("red"),
        base64.b64encode(encoded("red")).decode(),
    ],
    ids=["hugging face", "bytes", "base64"],
)
def test_cells_of_every_form(cell):
    picture = picture_from_cell(cell, "row 1")
    assert picture.size == (6, 4)
    assert to_pillow(picture).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("cell", [None, 3, {"bytes": None, "path": "x.png"}])
def test_a_cell_without_a_picture_is_refused(cell):
    with pytest.raises(DataError, match="row 3: a picture was asked for, the cell holds"):
        picture_from_cell(cell, "row 3")


def test_broken_base64_names_its_row():
    with pytest.raises(DataError, match="row 3: its picture is no base64"):
        picture_from_base64("%%%", "row 3")
    with pytest.raises(DataError, match="row 3: its picture cannot be read"):
        picture_from_base64(base64.b64encode(b"text").decode(), "row 3")


def test_broken_bytes_name_their_row():
    data = encoded("red", (400, 300), "JPEG")
    picture = picture_from_bytes(data[: len(data) // 2], "row 3")
    assert picture.size == (400, 300)
    with pytest.raises(DataError, match="row 3: its picture cannot be decoded"):
        to_pillow(picture)


def test_a_picture_of_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mllm_npu.evaluate.benchmark_pictures._MOST_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("big.png", encoded("red"))
    with pytest.raises(DataError, match="too large for a picture"):
        open_files(tmp_path / "z.zip").open("big.png", "row 1")
