"""OCR records are the original's: a picture and a flat list of turns."""

import json
from random import Random

import pytest

from mllm_npu.data.convert.ocr_record import OcrRecord
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.errors import SkipSample

KIND = OcrRecord()


@pytest.mark.parametrize("name", ["data", "conversations"])
def test_questions_and_answers_are_read_by_the_task(pictures, name):
    record = {"id": "00790000", "image": "b.png", name: ["What is written?", "EXIT"]}
    assert KIND.recognises(record)
    members = KIND.to_members(record, pictures)
    assert list(members) == ["png", "json"]
    assert json.loads(members["json"]) == {
        "conversations": ["What is written?", "EXIT"],
        "meta": {"id": "00790000"},
    }
    talk = Ocr().to_conversation(Row(key="a", members=members), Random(0))
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "b.png"}, "questions and answers missing"),
        ({"image": "b.png", "data": "text"}, "questions and answers missing"),
        ({"image": "b.png", "data": ["q"]}, "a question without an answer"),
        ({"image": "b.png", "data": ["q", " "]}, "question or answer empty"),
        ({"image": "b.png", "data": ["q", 5]}, "question or answer empty"),
        ({"data": ["q", "a"]}, "picture missing"),
        ({"image": "/etc/passwd", "data": ["q", "a"]}, "outside the images folder"),
        ({"image": "../b.png", "data": ["q", "a"]}, "outside the images folder"),
    ],
)
def test_incomplete_records_are_refused(pictures, record, reason):
    with pytest.raises(SkipSample, match=reason):
        KIND.to_members(record, pictures)


def test_a_conversation_of_objects_is_another_kind():
    assert not KIND.recognises({"conversations": [{"from": "human", "value": "x"}]})
    assert not KIND.recognises({"data": []})
