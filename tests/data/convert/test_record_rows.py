"""Records find their kind, become numbered rows, and get the names of their classes."""

import json

import pytest

from mllm_npu.data.convert.record_rows import KINDS, kind_of, to_rows
from mllm_npu.data.convert.source_format import Refusal
from mllm_npu.data.row import Row

RECORDS = {
    "captions": {"image": "a.jpg", "caption": "red"},
    "ocr": {"image": "a.jpg", "data": ["q", "a"]},
    "text": {"text": "only words"},
    "chat": {"image": "a.jpg", "conversations": [{"from": "gpt", "value": "x"}]},
    "edit": {"source_image": "a.jpg", "target_image": "b.png", "instruction": "x"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_kind_is_told_from_the_others(name):
    kind = kind_of(RECORDS[name])
    assert kind is not None
    assert kind.name == name
    assert {kind.name for kind in KINDS} == set(RECORDS)


def test_rows_are_numbered_by_place_and_refusals_pass(pictures):
    records = [
        ("line 1", RECORDS["captions"]),
        Refusal(reason="json broken", at="line 2"),
        ("line 3", {"x": 1, "y": 2}),
        ("line 4", {"image": "gone.jpg", "caption": "red"}),
        ("line 5", RECORDS["text"]),
    ]
    first, *refused, last = to_rows(records, pictures=pictures)
    assert isinstance(first, Row)
    assert (first.key, last.key) == ("0000000", "0000004")
    assert [(one.at, one.reason, one.detail) for one in refused] == [
        ("line 2", "json broken", ""),
        ("line 3", "entries not understood", "x, y"),
        ("line 4", "picture file missing", "gone.jpg"),
    ]


def test_a_kind_that_is_given_holds_for_all(pictures):
    text = next(kind for kind in KINDS if kind.name == "text")
    [refused] = to_rows([("line 1", RECORDS["ocr"])], pictures=pictures, kind=text)
    assert refused.reason == "text missing"


def test_numbers_of_classes_get_names(pictures):
    records = [("", {"image": "a.jpg", "label": label}) for label in (1, 0, 2, "own")]
    rows = list(to_rows(records, pictures=pictures, class_names=("cat", "dog")))
    captions = [json.loads(row.members["json"])["caption"] for row in rows]
    assert captions == ["dog", "cat", "2", "own"]
