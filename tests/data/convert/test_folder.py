"""Loose files become rows of indexed shards."""

import json

import pytest

from mllm_npu.data.convert.converter import convert
from mllm_npu.data.convert.folder import FolderFormat
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.source_format import Options
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption

LOOSE = FolderFormat()


@pytest.fixture
def folder(tmp_path, png):
    root = tmp_path / "photos"
    (root / "pets").mkdir(parents=True)
    (root / "pets" / "cat.png").write_bytes(png(6, 5))
    (root / "pets" / "cat.txt").write_text("a cat")
    (root / "7.source.png").write_bytes(png(4, 4))
    (root / "7.target.png").write_bytes(png(4, 4, (0, 0, 0)))
    (root / "7.json").write_text(json.dumps({"instruction": "make it black"}))
    (root / "notes.txt").write_text("no picture belongs to this")
    (root / "film.mp4").write_bytes(b"no picture")
    return root


def read_all(root, **options):
    listing, chosen = list_files(root), Options(**options)
    return [entry for part in LOOSE.split(listing, chosen) for entry in LOOSE.read(part, chosen)]


def test_files_of_one_name_are_a_row_and_the_rest_is_named(folder):
    assert LOOSE.recognises(list_files(folder))
    edit, film, notes, cat = read_all(folder)
    assert (edit.key, set(edit.members)) == ("7", {"source.png", "target.png", "json"})
    assert (cat.key, cat.members["txt"]) == ("pets/cat", b"a cat")
    assert (film.at, film.reason) == ("film.mp4", "file of another kind")
    assert (notes.at, notes.reason) == ("notes.txt", "picture missing")


def test_a_foreign_file_does_not_take_its_neighbours_along(folder):
    (folder / "pets" / "cat.xmp").write_bytes(b"notes of a camera")
    entries = read_all(folder)
    assert "pets/cat" in [getattr(entry, "key", "") for entry in entries]
    assert "pets/cat.xmp" in [getattr(entry, "at", "") for entry in entries]


def test_endings_are_read_without_case_and_lose_nothing(tmp_path, picture):
    (tmp_path / "a.JPEG").write_bytes(picture())
    (tmp_path / "a.jpg").write_bytes(picture("PNG"))
    [row] = read_all(tmp_path)
    assert sorted(row.members) == ["jpg", "png"]


def test_rows_are_split_into_parts_in_order(tmp_path, png):
    data = png(2, 2)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(data)
    parts = LOOSE.split(list_files(tmp_path), Options(rows_per_shard=4001))
    assert [part.num_rows for part in parts] == [5]
    assert parts[0].num_bytes == 5 * len(data)
    assert [row.key for row in read_all(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_the_shards_are_indexed_and_can_be_trained_on(folder, tmp_path):
    for name in ("7.json", "7.source.png", "7.target.png"):
        (folder / name).unlink()
    summary = convert(folder, tmp_path / "shards", format_name="folder")
    assert summary.kinds == {"caption": 1}
    source = Source(name="pets", shards=str(tmp_path / "shards" / "*.tar"), task=Caption())
    assert len(source) == 1
    assert source.row(0).picture().size == (6, 5)


def test_a_folder_without_pictures_is_not_recognised(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert not LOOSE.recognises(list_files(tmp_path))


def test_real_photos(shared):
    entries = read_all(shared / "data" / "photos")
    assert sum(hasattr(entry, "members") for entry in entries) == 316
    assert [entry.at for entry in entries if hasattr(entry, "at")] == ["labels.jsonl"]
