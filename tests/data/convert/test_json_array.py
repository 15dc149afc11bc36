"""An array is walked with exact byte positions, whatever its layout and however large it is."""

import json
import tracemalloc

import pytest

from mllm_npu.data.convert import json_array
from mllm_npu.data.convert.json_array import is_array, read_elements, walk_array
from mllm_npu.errors import DataError

VALUES = [{"text": 'ü 字 "quoted" ]}'}, {"n": [1, {"deep": [2]}]}, 5, "x", None, {}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_positions_are_those_of_the_bytes(tmp_path, monkeypatch, indent, ensure_ascii, chunk):
    monkeypatch.setattr(json_array, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    text = " \n" + json.dumps(VALUES, indent=indent, ensure_ascii=ensure_ascii)
    path.write_text(text, encoding="utf-8")
    data = path.read_bytes()
    elements = list(walk_array(path))
    assert [element.value for element in elements] == VALUES
    assert [json.loads(data[e.start : e.end]) for e in elements] == VALUES


def test_a_piece_of_an_array_is_read_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(VALUES, ensure_ascii=False), encoding="utf-8")
    elements = list(walk_array(path))
    piece = path.read_bytes()[elements[1].start : elements[3].end]
    assert list(read_elements(piece, 3)) == VALUES[1:4]


@pytest.mark.parametrize(
    ("text", "whole", "reason"),
    [
        (b'[{"a": 1}, {"a": 2', 1, "broken at byte 11"),
        (b'[{"a": 1}, oops, {"a": 2}]', 1, "broken at byte 11"),
        (b'[{"a": 1}', 1, "broken at byte 9"),
        (b'[{"a": "\xff"}]', 0, "not UTF-8"),
        (b"[", 0, "broken at byte 1"),
        (b"[" + b"[" * 100_000, 0, "broken"),
    ],
)
def test_what_precedes_a_break_comes_out(tmp_path, text, whole, reason):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    seen = []
    with pytest.raises(DataError, match=reason):
        seen.extend(walk_array(path))  # extend keeps what came before the error
    assert len(seen) == whole


def test_an_array_is_not_held_in_memory(tmp_path):
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + ",".join(['{"text": "%s"}' % ("x" * 1000)] * 20_000) + "]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in walk_array(path)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"[]", True), (b"\xef\xbb\xbf [1]", True), (b'{"a": [1]}', False), (b"", False)],
)
def test_an_array_is_told_by_its_first_sign(tmp_path, data, expected):
    (tmp_path / "a.json").write_bytes(data)
    assert is_array(tmp_path / "a.json") is expected
    assert not is_array(tmp_path / "nowhere")
