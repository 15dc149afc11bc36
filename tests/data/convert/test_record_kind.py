"""Pictures of a row are numbered, and its json keeps the id of the record."""

import json

import pytest

from mllm_npu.data.convert.record_kind import PictureMembers, encode_json
from mllm_npu.errors import SkipSample


def test_pictures_are_numbered_and_equal_ones_stored_once(album, pictures):
    numbered = PictureMembers(pictures=pictures)
    names = [numbered.add(name) for name in ("b.png", "a.jpg", "b.png", "c.webp")]
    assert names == ["0.png", "1.jpg", "0.png", "2.webp"]
    members = numbered.members()
    assert list(members) == ["0.png", "1.jpg", "2.webp"]
    assert members["1.jpg"] == (album / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    ("record", "meta"),
    [({"id": "7"}, {"id": "7"}), ({"id": 0}, {"id": 0}), ({}, None), ({"id": ""}, None)],
)
def test_the_id_goes_to_meta(record, meta):
    values = json.loads(encode_json({"text": "字"}, record=record))
    assert values.get("meta") == meta
    assert values["text"] == "字"


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1, 2}.__iter__])
def test_what_json_cannot_say_is_refused_or_named(value):
    if callable(value):
        assert b"method" in encode_json({"a": value})
        return
    with pytest.raises(SkipSample, match="json cannot be written"):
        encode_json({"a": value})
