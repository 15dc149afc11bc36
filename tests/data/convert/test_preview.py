"""A preview reads little, writes nothing, and says what would come."""

import pytest

from mllm_npu.data.convert.converter import convert
from mllm_npu.data.convert.preview import ROWS_PER_PART, preview
from mllm_npu.data.convert.source_format import Options
from mllm_npu.errors import DataError


def test_what_a_jsonl_would_give(album, make_lines):
    records = [{"image": "a.jpg", "caption": f"number {n}"} for n in range(100)]
    records[1]["image"] = "gone.jpg"
    make_lines(album / "rows.jsonl", records)
    before = sorted(album.iterdir())
    found = preview(album / "rows.jsonl")
    assert sorted(album.iterdir()) == before
    assert (found.format_name, found.parts, found.rows_read) == ("captions", 1, ROWS_PER_PART)
    assert found.kinds == {"caption": ROWS_PER_PART - 1}
    assert found.refused == {"picture file missing": 1}
    assert found.first_refusal["at"] == "line 2"
    assert found.expected_rows == 100
    assert found.example["members"]["jpg"] == (album / "a.jpg").stat().st_size
    assert found.example["text"] == '{"caption": "number 0"}'


def test_the_expected_size_is_about_what_comes(album, make_lines, tmp_path):
    make_lines(album / "rows.jsonl", [{"image": "a.jpg", "caption": "x"}] * 500)
    found = preview(album / "rows.jsonl")
    made = convert(album / "rows.jsonl", tmp_path / "out")
    assert made.rows == found.expected_rows
    assert abs(made.num_bytes - found.expected_bytes) < 0.05 * made.num_bytes


def test_every_part_is_looked_at(tmp_path, make_lines, make_tar, picture):
    moved = []
    for name in "abc":
        make_lines(tmp_path / f"{name}.jsonl", [{"text": name}] * 30)
    found = preview(tmp_path, progress=lambda done, total: moved.append((done, total)))
    assert (found.rows_read, found.kinds) == (3 * ROWS_PER_PART, {"pure_text": 3 * ROWS_PER_PART})
    assert moved == [(1, 3), (2, 3), (3, 3)]
    make_tar(tmp_path / "x.tar", [("0.jpg", picture())])
    tar = preview(tmp_path / "x.tar")
    assert (tar.expected_rows, tar.expected_bytes, tar.kinds) == (None, None, {"picture": 1})


def test_nothing_but_refusals(tmp_path, make_lines):
    make_lines(tmp_path / "a.jsonl", [{"image": "gone.jpg", "caption": "x"}])
    found = preview(tmp_path / "a.jsonl", options=Options())
    assert (found.example, found.expected_bytes, found.kinds) == (None, None, {})
    with pytest.raises(DataError, match="no such file"):
        preview(tmp_path / "nowhere")
