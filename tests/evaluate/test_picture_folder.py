import zipfile

import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.picture_folder import find_pictures, read_pictures
from mllm_npu.processing.raster import to_pillow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for name, size in (("b.png", (4, 2)), ("A.JPG", (3, 3)), ("below/c.webp", (5, 6))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    return tmp_path


def test_pictures_are_found_in_order_and_read_when_needed(folder):
    assert find_pictures(folder) == ["A.JPG", "b.png", "below/c.webp"]
    pictures = dict(read_pictures(folder))
    assert [picture.size for picture in pictures.values()] == [(3, 3), (4, 2), (5, 6)]
    assert to_pillow(pictures["b.png"]).getpixel((0, 0)) == (255, 0, 0)
    assert len({picture.data for picture in pictures.values()}) == 3


def test_a_zip_is_as_good_as_a_folder(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("zips") / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b.png", "notes.txt"):
            archive.write(folder / name, f"inside/{name}")
    [(name, picture)] = read_pictures(path)
    assert (name, to_pillow(picture).size) == ("inside/b.png", (4, 2))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere, nothing is there"):
        find_pictures(tmp_path / "nowhere")


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no picture.*\n.*\.webp"):
        find_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="there is no picture"):
        read_pictures(tmp_path)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        read_pictures(tmp_path)
