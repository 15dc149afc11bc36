"""Pickled documents become json and pictures; a hostile one harms nobody."""

import base64
import json
import os
import pickle
from random import Random

import pytest

from mllm_npu.data.convert import interleaved_format
from mllm_npu.data.convert.interleaved_format import InterleavedFormat
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.source_format import Options, Refusal
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.processing.conversation import Text

DOCUMENTS = InterleavedFormat()


class Caller:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def read_all(folder, **options):
    chosen = Options(**options)
    parts = DOCUMENTS.split(list_files(folder), chosen)
    return [entry for part in parts for entry in DOCUMENTS.read(part, chosen)]


@pytest.fixture
def convert(tmp_path, make_tar):
    """Converts one document given as a value or as the bytes of its pickle."""

    def run(document, **options):
        data = document if isinstance(document, bytes) else pickle.dumps(document)
        make_tar(tmp_path / "a.tar", [("d0.pkl", data)])
        [entry] = read_all(tmp_path, **options)
        return entry

    return run


def encoded(data):
    return base64.b64encode(data).decode()


def test_a_document_becomes_parts_in_order(convert, picture):
    red, green = picture(), picture("PNG", (0, 255, 0))
    row = convert(
        {
            "images": [None, encoded(red), None, encoded(green), red],
            "texts": ["a red one ", None, "", None, None],
        },
        draw_share=0.0,
    )
    assert list(row.members) == ["0.jpg", "1.png", "json"]
    assert row.members["0.jpg"] == red
    assert json.loads(row.members["json"]) == {
        "parts": [
            {"text": "a red one "},
            {"image": "0.jpg"},
            {"image": "1.png"},
            {"image": "0.jpg"},
        ]
    }
    talk = Interleaved().to_conversation(row, Random(0))
    assert isinstance(talk.turns[0].parts[0], Text)
    assert len(talk.turns[0].parts) == 4


def test_the_share_that_is_drawn_depends_on_the_place_alone(convert, picture):
    images = [picture(color=(n % 256, n // 256, 0)) for n in range(400)]
    document = {"images": images, "texts": [None] * 400}

    def drawn(share):
        parts = json.loads(convert(document, draw_share=share).members["json"])["parts"]
        return {place for place, part in enumerate(parts) if part.get("draw")}

    assert drawn(0.0) == set()
    assert len(drawn(1.0)) == 400
    assert drawn(0.5) == drawn(0.5)
    assert 150 < len(drawn(0.5)) < 250
    assert drawn(0.2) < drawn(0.5)


def test_a_document_of_texts_is_kept(convert):
    row = convert({"images": [None], "texts": ["only text"]})
    assert list(row.members) == ["json"]


def test_a_pickle_that_runs_code_is_refused_and_named(convert, tmp_path):
    made = tmp_path / "made"
    document = {"images": [None], "texts": [Caller(f"touch {made}")]}
    refused = convert(document)
    assert refused.reason == "pickle names a global"
    assert refused.detail.endswith("system")
    assert not made.exists()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([1], "document is not a dict"),
        ({"texts": []}, "images or texts missing"),
        ({"images": "x", "texts": "x"}, "images or texts missing"),
        ({"images": [None], "texts": []}, "images and texts differ in number"),
        ({"images": [None], "texts": [None]}, "not either a picture or a text"),
        ({"images": ["aGk="], "texts": ["x"]}, "not either a picture or a text"),
        ({"images": [5], "texts": [None]}, "picture is not base64"),
        ({"images": [None], "texts": [5]}, "picture is not base64 or text is not a text"),
        ({"images": ["&&"], "texts": [None]}, "picture is not base64"),
        ({"images": ["aGk="], "texts": [None]}, "not a picture"),
        ({"images": [None], "texts": [""]}, "document empty"),
        ({"images": [None] * 10_001, "texts": ["x"] * 10_001}, "document too long"),
        (b"garbage", "pickle broken"),
    ],
)
def test_broken_documents_are_refused(convert, document, reason):
    refused = convert(document)
    assert isinstance(refused, Refusal)
    assert refused.reason.startswith(reason)
    assert refused.at == "d0"


def test_a_text_named_a_thousand_times_does_not_fill_the_disk(convert, monkeypatch):
    monkeypatch.setattr(interleaved_format, "MAX_TEXT_CHARS", 10_000)
    long = "x" * 100
    assert convert({"images": [None] * 101, "texts": [long] * 101}).reason == "document too long"


def test_files_beside_a_pickle_are_not_dropped_in_silence(tmp_path, make_tar):
    data = pickle.dumps({"images": [None], "texts": ["x"]})
    make_tar(tmp_path / "a.tar", [("a.pkl", data), ("a.json", b"{}"), ("b.txt", b"x")])
    first, second = read_all(tmp_path)
    assert (first.reason, first.detail) == ("not one pickle alone", "pkl, json")
    assert second.at == "b"


def test_the_recorded_documents_of_the_original(shared):
    folder = shared / "golden" / "fixtures" / "interleave"
    assert DOCUMENTS.recognises(list_files(folder))
    entries = read_all(folder, draw_share=0.0)
    assert [e.at for e in entries if isinstance(e, Refusal)] == ["d3"]
    rows = {e.key: json.loads(e.members["json"])["parts"] for e in entries if e.__class__ is not Refusal}  # fmt: skip  # noqa: E501
    assert rows["d0"] == [{"text": "a photo of"}, {"image": "0.jpg"}, {"text": "a cat on the mat"}]
    assert rows["d1"] == [{"image": "0.jpg"}, {"text": "a dog"}]
    assert rows["d2"] == [{"text": "only text"}]
    assert [part for part in rows["d4"] if "image" in part] == [{"image": "0.jpg"}] * 9
