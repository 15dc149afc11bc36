import io
from random import Random

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.worlds import digit_words as words
from mllm_npu.data.worlds.digit_rows import DigitRows
from mllm_npu.data.worlds.digit_scans import DigitScans

KINDS = ("read", "draw", "sum", "larger", "draw_larger", "look_then_draw", "strip")


@pytest.fixture(scope="module")
def scans():
    return DigitScans(share=0.1)


@pytest.fixture
def rows(scans):
    return DigitRows(scans=scans, split="train", seed=0)


def metas(rows):
    return [row.json()["meta"] for row in rows]


def everything(rows):
    yield from rows.captions()
    yield from rows.strips(30)
    yield from rows.pages(60)
    yield from rows.conversations(dict.fromkeys(KINDS, 20))
    yield from rows.unseen_wordings(10)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_only_scans_of_the_split_are_used_and_all_are_named(scans, split):
    found = list(everything(DigitRows(scans=scans, split=split, seed=0)))
    assert {scan for meta in metas(found) for scan in meta["scans"]} <= set(scans.ids[split])
    for row in found:
        stored = [name for name in row.members if name.endswith("png")]
        if row.json()["meta"]["kind"] != "strip":
            named = {scans.png(scan) for scan in row.json()["meta"]["scans"]}
            assert {row.members[name] for name in stored} == named
    assert all(f"-{split}-" in row.key for row in found)


def test_the_same_seed_gives_the_same_rows(scans):
    first, again, other = (
        [row.members["json"] for row in DigitRows(scans=scans, split="train", seed=n).strips(10)]
        for n in (0, 0, 1)
    )
    assert first == again != other


def test_captions_name_the_digit_of_the_scan(rows, scans):
    found = list(rows.captions())
    assert len(found) == len(scans.ids["train"])
    for row in found:
        label = row.json()["label"]
        assert words.NUMBERS[label] in row.json()["caption"]
        assert scans.digit(row.json()["meta"]["scans"][0]) == label
    # Two texts for one digit would count as two things in the contrast of a batch.
    assert len({row.json()["caption"] for row in found}) == 10
    talk = Caption().to_conversation(found[0], Random(0))
    assert talk.task == "caption"


def test_strips_have_two_to_six_digits_in_order(rows, scans):
    found = list(rows.strips(20))
    for row in found:
        meta = row.json()["meta"]
        assert row.json()["conversations"][1] == " ".join(map(str, meta["labels"]))
        assert [scans.digit(scan) for scan in meta["scans"]] == meta["labels"]
        width = Image.open(io.BytesIO(row.members["png"])).width
        assert 16 * len(meta["labels"]) <= width <= 17 * len(meta["labels"])
        Ocr().to_conversation(row, Random(0))
    lengths = [len(meta["labels"]) for meta in metas(found)]
    assert np.bincount(lengths).tolist() == [0, 0, 4, 4, 4, 4, 4]


def test_pages_answer_rightly_and_draw_only_without_ambiguity(rows, scans):
    for row in rows.pages(90):
        meta, parts = row.json()["meta"], row.json()["parts"]
        a, b = meta["a"], meta["b"]
        assert [scans.digit(scan) for scan in meta["scans"][:2]] == [a, b]
        Interleaved().to_conversation(row, Random(0))
        if meta["kind"] == "sum":
            assert f" {words.NUMBERS[a + b]}." in parts[-1]["text"]
            continue
        assert a != b
        if meta["kind"] == "larger":
            assert f" {words.NUMBERS[max(a, b)]}." in parts[-1]["text"]
        else:
            assert parts[-1] == {"image": "2.png", "draw": True}
            assert scans.digit(meta["scans"][2]) == max(a, b)
            assert meta["scans"][2] not in meta["scans"][:2]


def test_conversations_answer_rightly(rows, scans):
    found = list(rows.conversations(dict.fromkeys(KINDS, 30)))
    assert len(found) == 30 * len(KINDS)
    for row in found:
        meta = row.json()["meta"]
        talk = Instruction().to_conversation(row, Random(0))
        last = talk.turns[-1].parts[-1]
        answer = getattr(last, "text", None)
        match meta["kind"]:
            case "read":
                assert answer == words.NUMBERS[meta["label"]]
            case "sum":
                assert answer == words.NUMBERS[meta["a"] + meta["b"]]
            case "larger":
                assert answer == words.NUMBERS[max(meta["a"], meta["b"])]
                assert meta["a"] != meta["b"]
            case "strip":
                assert answer == " ".join(map(str, meta["labels"]))
            case _:
                assert answer is None
                drawn = np.asarray(last.picture)[:, :, 0]
                scan = meta["scans"][-1]
                assert (drawn == scans.pixels[scan]).all()
                assert scans.digit(scan) == meta["label"]


def test_drawing_prompts_ask_for_figures_and_words_alike(rows):
    prompts = [
        (row.json()["messages"][0]["content"][-1]["text"], row.json()["meta"]["label"])
        for row in rows.conversations({"draw": 200})
    ]
    as_word = [words.NUMBERS[label] in prompt for prompt, label in prompts]
    as_figure = [str(label) in prompt for prompt, label in prompts]
    assert all(word != figure for word, figure in zip(as_word, as_figure, strict=True))
    assert 60 < sum(as_word) < 140


def test_the_next_digit_is_never_asked_after_nine(rows):
    found = metas(rows.conversations({"look_then_draw": 200}))
    steps = {meta["label"] - meta["seen"] for meta in found}
    assert steps == {0, 1}


def test_every_scan_is_asked_about_once_in_seen_and_unseen_wordings(scans):
    rows = DigitRows(scans=scans, split="test", seed=0)
    ids = scans.ids["test"]
    asked = metas(rows.conversations({"read": len(ids)}))
    assert sorted(meta["scans"][0] for meta in asked) == ids
    unseen = metas(rows.unseen_wordings(20))
    reads = [meta for meta in unseen if meta["kind"] == "read"]
    draws = [meta for meta in unseen if meta["kind"] == "draw"]
    assert sorted(meta["scans"][0] for meta in reads) == ids
    assert len(draws) == 20 * len(words.UNSEEN_DRAW)
    assert np.bincount([meta["label"] for meta in draws]).tolist() == [24] * 10
    assert all(meta["unseen"] for meta in unseen)
