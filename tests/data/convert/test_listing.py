"""A source is listed once, in the order of names."""

import pytest

from mllm_npu.data.convert.listing import list_files
from mllm_npu.errors import DataError


def test_a_folder_is_listed_in_order_without_hidden_files(tmp_path):
    for name in ("b/2.tar", "a.JPG", "b/10.tar", ".git/x.tar", ".hidden.tar", "c/deep/er.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    listing = list_files(tmp_path)
    assert listing.names == ("a.JPG", "b/10.tar", "b/2.tar", "c/deep/er.json")
    assert listing.paths(".tar") == [tmp_path / "b/10.tar", tmp_path / "b/2.tar"]
    assert listing.paths(".jpg", ".json") == [tmp_path / "a.JPG", tmp_path / "c/deep/er.json"]
    assert listing.describe() == "2 .tar, 1 .jpg, 1 .json"


def test_a_file_is_a_listing_of_one(tmp_path):
    (tmp_path / "other.tar").write_bytes(b"")
    (tmp_path / "one.tar").write_bytes(b"")
    assert list_files(tmp_path / "one.tar").names == ("one.tar",)


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "again").symlink_to(tmp_path)
    assert "a.txt" in list_files(tmp_path).names
    assert len(list_files(tmp_path).names) <= 2


def test_nothing_is_refused_and_an_empty_folder_is_described(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list_files(tmp_path / "nowhere")
    assert list_files(tmp_path).describe() == "no files"


def test_a_source_is_the_same_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert list_files("a.tar") == list_files(tmp_path / "a.tar")
    assert list_files(".") == list_files(tmp_path)
