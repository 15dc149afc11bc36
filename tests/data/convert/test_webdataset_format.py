"""Tars of others and the original's caption tars become rows."""

import json

import pytest

from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.source_format import Options, Refusal
from mllm_npu.data.convert.webdataset_format import WebdatasetFormat, holds_pickles

TARS = WebdatasetFormat()


def read_all(folder, **options):
    chosen = Options(**options)
    return [e for part in TARS.split(list_files(folder), chosen) for e in TARS.read(part, chosen)]


def test_tars_are_read_one_after_the_other(tmp_path, make_tar, picture):
    make_tar(tmp_path / "b.tar", [("0.webp", picture("WEBP")), ("0.cls", b"1")])
    make_tar(tmp_path / "a.tar", [("0.jpg", picture()), ("0.txt", b"a cat"), ("1.txt", b"alone")])
    assert TARS.recognises(list_files(tmp_path))
    first, refused, last = read_all(tmp_path, class_names=("cat", "dog"))
    assert (list(first.members), list(last.members)) == (["jpg", "txt"], ["webp", "txt"])
    assert last.members["txt"] == b"dog"
    assert (refused.at, refused.reason) == ("1", "picture missing")


def test_the_layout_of_the_originals_own_script(tmp_path, make_tar, picture):
    """process_wds.py names members by the picture's path: 1.jpg.img, 1.jpg.txt."""
    members = []
    for number in (1, 2):
        members += [(f"p/{number}.jpg.img", picture()), (f"p/{number}.jpg.txt", b"text")]
    make_tar(tmp_path / "test-000000.tar", [*members, ("3.img", picture("PNG")), ("3.txt", b"x")])
    rows = read_all(tmp_path)
    assert [row.key for row in rows] == ["p/1", "p/2", "3"]
    assert [list(row.members) for row in rows] == [["jpg", "txt"], ["jpg", "txt"], ["png", "txt"]]


def test_a_tar_of_pickles_is_another_format(tmp_path, make_tar):
    path = make_tar(tmp_path / "a.tar", [("a.pkl", b"N."), ("b.pkl", b"N.")])
    assert holds_pickles(path)
    assert not TARS.recognises(list_files(tmp_path))
    assert [entry.reason for entry in read_all(tmp_path)] == ["pickle in the row"] * 2


def test_no_tar_is_not_recognised(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert not TARS.recognises(list_files(tmp_path))


@pytest.mark.parametrize("folder", ["caption", "caption_txt"])
def test_the_recorded_tars_of_the_original(shared, folder):
    entries = read_all(shared / "golden" / "fixtures" / folder)
    rows = {e.key: e for e in entries if not isinstance(e, Refusal)}
    refused = {e.at: e.reason for e in entries if isinstance(e, Refusal)}
    if folder == "caption_txt":
        assert {key: sorted(row.members) for key, row in rows.items()} == {
            "a": ["jpg", "txt"],
            "b": ["jpg", "txt"],
            "c": ["jpg", "json"],
        }
        assert not refused
        return
    assert refused == {"004": "not a picture", "006": "picture missing", "007": "json broken"}
    assert list(rows["005"].members) == ["jpg"]
    assert list(rows["008"].members) == ["png", "json"]
    assert json.loads(rows["000"].members["json"])["similarity"] == 0.5
