"""Converted rows are told apart by their members."""

import json

import pytest

from mllm_npu.data.convert.row_kind import kind_of_row
from mllm_npu.data.row import Row


@pytest.mark.parametrize(
    ("pictures", "values", "kind"),
    [
        (["jpg"], {"caption": "x"}, "caption"),
        (["jpg"], {"conversations": ["q", "a"]}, "ocr"),
        (["jpg"], {"data": ["q", "a"]}, "ocr"),
        ([], {"messages": []}, "instruction"),
        ([], {"parts": []}, "interleaved"),
        (["source.jpg"], {"instruction": "x"}, "edit"),
        (["0.jpg"], {"source": "0.jpg", "turns": []}, "edit (several turns)"),
        ([], {"text": "x"}, "pure_text"),
        (["jpg"], {"url": "x"}, "picture"),
    ],
)
def test_a_kind_follows_from_the_json(pictures, values, kind):
    members = dict.fromkeys(pictures, b"x") | {"json": json.dumps(values).encode()}
    assert kind_of_row(Row(key="a", members=members)) == kind


def test_a_kind_follows_from_the_texts():
    assert kind_of_row(Row(key="a", members={"jpg": b"x", "txt": b"x"})) == "caption"
    assert kind_of_row(Row(key="a", members={"txt": b"x"})) == "pure_text"
    assert kind_of_row(Row(key="a", members={"0.webp": b"x"})) == "picture"
