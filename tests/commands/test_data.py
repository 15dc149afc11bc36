"""Data sets are made and indexed from the command line."""

from PIL import Image

from mllm_npu.cli import main


def test_index_of_nothing_is_refused(capsys, tmp_path):
    assert main(["data", "index", str(tmp_path / "*.tar")]) == 2
    assert "no shard" in capsys.readouterr().err.lower()


def test_a_folder_of_pictures_becomes_shards(capsys, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert main(["data", "pictures", str(tmp_path), "--out", str(tmp_path / "shards")]) == 0
    assert "1 rows" in capsys.readouterr().err
    assert (tmp_path / "shards" / "00000.tar").is_file()
