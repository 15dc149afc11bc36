"""Tars of others are grouped by key, also where they are broken, joined or oddly named."""

import io
import tarfile

import pytest

from mllm_npu.data.convert import tar_samples
from mllm_npu.data.convert.source_format import Refusal
from mllm_npu.data.convert.tar_samples import read_samples, split_loose_name
from mllm_npu.errors import DataError

MEMBERS = [(f"{key}.{ending}", f"{key} {ending}".encode() * 40) for key in "abcd" for ending in ("jpg", "txt")]  # fmt: skip  # noqa: E501


def keys(path):
    return [one.key for one in read_samples(path) if not isinstance(one, Refusal)]


def refusals(path):
    return [one for one in read_samples(path) if isinstance(one, Refusal)]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("7.jpg", ("7", "jpg")),
        ("f.o/7.0.JPG", ("f.o/7", "0.jpg")),
        ("1.jpg.img", ("1", "img")),
        ("1.jpg.txt", ("1", "txt")),
        ("dir/a.b.JPEG.img", ("dir/a_b", "img")),
        ("7.source.png", ("7", "source.png")),
        ("README", None),
        ("dir/.hidden", None),
    ],
)
def test_names_are_split_as_webdataset_does_and_as_the_original_wrote(name, parts):
    assert split_loose_name(name) == parts


def test_neighbours_of_a_key_are_a_sample(make_tar, tmp_path):
    path = make_tar(tmp_path / "a.tar", [*MEMBERS, ("a.jpg", b"again"), ("README", b"hi")])
    samples = list(read_samples(path))
    assert [one.key for one in samples if not isinstance(one, Refusal)] == [*"abcd", "a"]
    assert samples[0].contents == [("jpg", MEMBERS[0][1]), ("txt", MEMBERS[1][1])]
    assert [(one.at, one.broken) for one in refusals(path)] == [("README", False)]


def test_an_empty_tar_has_no_samples(make_tar, tmp_path):
    assert list(read_samples(make_tar(tmp_path / "a.tar", []))) == []
    with pytest.raises(DataError, match="cannot be read"):
        list(read_samples(tmp_path / "nowhere.tar"))


def test_tars_joined_into_one_file_are_all_read(make_tar, tmp_path):
    first = make_tar(tmp_path / "a.tar", MEMBERS[:4]).read_bytes()
    second = make_tar(tmp_path / "b.tar", MEMBERS[4:]).read_bytes()
    (tmp_path / "joined.tar").write_bytes(first + second)
    assert keys(tmp_path / "joined.tar") == [*"abcd"]
    assert refusals(tmp_path / "joined.tar") == []


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_kept(tmp_path, kind):
    name = "folder/" * 30 + "key.txt"
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    assert keys(tmp_path / "a.tar") == [name.removesuffix(".txt")]


def test_a_tar_cut_inside_a_file_gives_what_is_whole(make_tar, tmp_path):
    path = make_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(path) as archive:
        inside = archive.getmember("c.txt").offset_data + 100
    path.write_bytes(path.read_bytes()[:inside])
    assert keys(path) == ["a", "b"]
    cut, broken = refusals(path)
    assert (cut.at, cut.reason) == ("c", "cut off where the tar is broken")
    assert (broken.reason, broken.broken) == ("tar broken", True)


def test_a_sample_before_the_one_that_is_cut_is_whole(make_tar, tmp_path):
    path = make_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(path) as archive:
        inside = archive.getmember("c.jpg").offset_data + 100
    path.write_bytes(path.read_bytes()[:inside])
    assert keys(path) == ["a", "b"]
    assert [one.reason for one in refusals(path)] == ["tar broken"]


def test_a_tar_cut_between_files_says_so(make_tar, tmp_path):
    path = make_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(path) as archive:
        between = archive.getmember("c.txt").offset
    path.write_bytes(path.read_bytes()[:between])
    assert keys(path) == ["a", "b"]
    assert refusals(path)[0].at == "c"
    assert [one.broken for one in refusals(path)] == [False, True]
    assert "end mark" in refusals(path)[-1].detail


def test_behind_a_broken_header_it_goes_on(make_tar, tmp_path):
    path = make_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(path) as archive:
        header = archive.getmember("b.txt").offset
    data = bytearray(path.read_bytes())
    data[header : header + 20] = b"\xff" * 20
    path.write_bytes(data)
    assert keys(path) == ["a", "c", "d"]
    cut, broken = refusals(path)
    assert (cut.at, broken.at) == ("b", f"byte {header}")


def test_a_tar_of_noise_is_broken(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>" * 1000)
    assert keys(tmp_path / "a.tar") == []
    assert any(one.broken for one in refusals(tmp_path / "a.tar"))


def test_a_file_of_absurd_size_is_not_read(make_tar, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_samples, "MAX_MEMBER_BYTES", 300)
    path = make_tar(tmp_path / "a.tar", [*MEMBERS, ("e.jpg", b"x" * 400), ("e.txt", b"x")])
    assert keys(path) == [*"abcd"]
    assert [(one.at, one.reason, one.detail) for one in refusals(path)] == [
        ("e", "file too large", "e.jpg")
    ]
