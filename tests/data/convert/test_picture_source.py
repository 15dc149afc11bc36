"""Pictures are found inside their folder and nowhere else."""

import base64
import os

import pytest

from mllm_npu.data.convert.picture_source import PictureSource, decode_base64, first_of
from mllm_npu.errors import SkipSample


def test_a_picture_is_found_by_path_bytes_and_data_url(album, pictures):
    data = (album / "b.png").read_bytes()
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    for reference in (
        "b.png",
        "./b.png",
        "nothing/../b.png",
        str(album / "b.png"),
        data,
        {"bytes": data, "path": "elsewhere.jpg"},
        {"bytes": None, "path": "b.png"},
        {"url": url},
        url,
    ):
        stored = pictures.load(reference)
        assert (stored.extension, stored.data) == ("png", data), reference


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("../secret.png", r"outside the images folder: \.\./secret\.png"),
        ("/etc/passwd", "outside"),
        ("a/../../secret.png", "outside"),
        ("gone.jpg", r"picture file missing: gone\.jpg"),
        (".", "is no file"),
        ("a\0.jpg", "path broken"),
        ("x" * 5000, "cannot be read"),
        ("http://example.com/a.jpg", "on the network"),
        ("https://example.com/a.jpg", "on the network"),
        ("file:///etc/passwd", "on the network"),
        ("s3://bucket/a.jpg", "on the network"),
        ("data:image/png,notbase64", "not base64"),
        ("data:image/png;base64,&&&&", "not base64"),
        ("", "missing"),
        ("  ", "missing"),
        (None, "missing"),
        (7, "missing"),
        ({"bytes": None, "path": None}, "missing"),
        (b"junk", "not a picture"),
    ],
)
def test_what_is_not_to_be_had_is_refused(album, pictures, reference, reason):
    (album.parent / "secret.png").write_bytes((album / "b.png").read_bytes())
    with pytest.raises(SkipSample, match=reason):
        pictures.load(reference)


def test_a_link_may_not_leave_the_folder_but_may_stay(album, pictures):
    outside = album.parent / "secret.png"
    outside.write_bytes((album / "b.png").read_bytes())
    (album / "leaves.png").symlink_to(outside)
    (album / "folder").symlink_to(album.parent)
    (album / "stays.png").symlink_to(album / "b.png")
    for name in ("leaves.png", "folder/secret.png"):
        with pytest.raises(SkipSample, match="outside"):
            pictures.load(name)
    assert pictures.load("stays.png").extension == "png"


def test_a_pipe_is_refused_instead_of_waited_for(album, pictures):
    os.mkfifo(album / "pipe.jpg")
    with pytest.raises(SkipSample, match="is no file"):
        pictures.load("pipe.jpg")


def test_a_neighbour_with_the_same_beginning_is_outside(album):
    (album.parent / "album2").mkdir()
    (album.parent / "album2" / "a.jpg").write_bytes(b"x")
    with pytest.raises(SkipSample, match="outside"):
        PictureSource(folder=album).load("../album2/a.jpg")


def test_base64_is_checked():
    assert decode_base64(" aGk=\n") == b"hi"
    with pytest.raises(SkipSample, match="not base64"):
        decode_base64("!!")


def test_the_first_entry_that_holds_something_counts():
    assert first_of({"a": None, "b": "", "c": [], "d": 0}, ("a", "b", "c", "d")) == 0
    assert first_of({}, ("a",)) is None
