"""Text records keep every character."""

import json

import pytest

from mllm_npu.data.convert.text_record import TextRecord
from mllm_npu.errors import SkipSample

KIND = TextRecord()


@pytest.mark.parametrize("name", ["text", "content"])
def test_the_text_is_kept_as_it_is(pictures, name):
    record = {name: " two lines\nof text 字 ", "id": 3}
    assert KIND.recognises(record)
    values = json.loads(KIND.to_members(record, pictures)["json"])
    assert values == {"text": " two lines\nof text 字 ", "meta": {"id": 3}}


@pytest.mark.parametrize(
    ("record", "reason"),
    [({"x": 1}, "text missing"), ({"text": None}, "text missing"), ({"text": " \n"}, "text empty")],
)
def test_nothing_to_read_is_refused(pictures, record, reason):
    with pytest.raises(SkipSample, match=reason):
        KIND.to_members(record, pictures)
    assert KIND.recognises(record) == (reason == "text empty")
