"""Loose files become rows of indexed shards."""

import json

import pytest

from mllm_npu.data.convert.folder import convert_folder
from mllm_npu.data.index import read_rows
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import DataError


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


def test_files_of_one_name_are_a_row(folder, tmp_path):
    moved = []
    out = tmp_path / "shards"
    assert (
        convert_folder(folder, out, progress=lambda done, total: moved.append((done, total))) == 2
    )
    rows = {row.key: row.members for row in read_rows(out / "00000.tar")}
    assert {key: set(members) for key, members in rows.items()} == {
        "7": {"source.png", "target.png", "json"},
        "pets/cat": {"png", "txt"},
    }
    assert rows["pets/cat"]["txt"] == b"a cat"
    assert moved == [(2, 2)]


def test_the_shards_are_indexed_and_can_be_read(folder, tmp_path):
    (folder / "7.json").unlink()
    (folder / "7.source.png").unlink()
    (folder / "7.target.png").unlink()
    convert_folder(folder, tmp_path / "shards", rows_per_shard=1)
    source = Source(name="pets", shards=str(tmp_path / "shards" / "*.tar"), task=Caption())
    assert len(source) == 1
    assert source.row(0).picture().size == (6, 5)


def test_shards_hold_so_many_rows(tmp_path, png):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png(2, 2))
    assert convert_folder(tmp_path, tmp_path / "out", rows_per_shard=2) == 5
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
    ]


def test_nothing_to_convert_and_a_full_target_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="there are none"):
        convert_folder(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="rows_per_shard=0"):
        convert_folder(folder, tmp_path / "out", rows_per_shard=0)
    convert_folder(folder, tmp_path / "out")
    with pytest.raises(DataError, match="holds shards already"):
        convert_folder(folder, tmp_path / "out")
