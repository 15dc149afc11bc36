"""Caption records keep their filters; captions are found under the names people use."""

import datetime
import json
from random import Random

import pytest

from mllm_npu.data.convert.caption_record import CaptionRecord
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import SkipSample

KIND = CaptionRecord()


def to_json(record, pictures):
    members = KIND.to_members(record, pictures)
    return json.loads(members["json"])


@pytest.mark.parametrize(
    ("record", "caption"),
    [
        ({"image": "a.jpg", "caption": " a cat "}, "a cat"),
        ({"file_name": "a.jpg", "text": "a cat"}, "a cat"),
        ({"image_path": "a.jpg", "label": "cat"}, "cat"),
        ({"image": "a.jpg", "label": 0}, "0"),
        ({"image": ["a.jpg"], "captions": ["a cat", "a red cat"]}, ["a cat", "a red cat"]),
        ({"image": "a.jpg", "caption": "", "text": "a cat"}, "a cat"),
    ],
)
def test_pictures_and_captions_are_found(pictures, album, record, caption):
    assert KIND.recognises(record)
    assert to_json(record, pictures)["caption"] == caption
    assert KIND.to_members(record, pictures)["jpg"] == (album / "a.jpg").read_bytes()


def test_further_entries_are_kept_so_that_filters_work(pictures):
    record = {
        "id": 5,
        "image": "a.jpg",
        "caption": "a cat",
        "text": "another text",
        "similarity": 0.1,
        "url": "http://example.com",
        "seen": datetime.date(2024, 5, 1),
        "aesthetic": float("nan"),
        "empty": None,
        "mask": b"bytes",
        "second": {"bytes": b"x", "path": None},
    }
    members = KIND.to_members(record, pictures)
    assert json.loads(members["json"]) == {
        "caption": "a cat",
        "text": "another text",
        "similarity": 0.1,
        "url": "http://example.com",
        "seen": "2024-05-01",
        "meta": {"id": 5},
    }
    with pytest.raises(SkipSample, match="similarity"):
        Caption(min_similarity=0.2).to_conversation(Row(key="a", members=members), Random(0))
    Caption(min_similarity=0.05).to_conversation(Row(key="a", members=members), Random(0))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "a.jpg"}, "caption missing"),
        ({"image": "a.jpg", "caption": "  "}, "caption missing"),
        ({"image": "a.jpg", "caption": ["a", ""]}, "caption missing"),
        ({"image": "a.jpg", "caption": True}, "caption missing"),
        ({"caption": "a cat"}, "picture missing"),
        ({"image": "gone.jpg", "caption": "a cat"}, "picture file missing"),
    ],
)
def test_a_record_without_one_of_both_is_refused(pictures, record, reason):
    with pytest.raises(SkipSample, match=reason):
        KIND.to_members(record, pictures)
    assert not KIND.recognises(record) or "gone" in str(record)
