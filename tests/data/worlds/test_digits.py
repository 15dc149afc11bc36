import json
import time

import pytest

from mllm_npu.data.index import read_rows
from mllm_npu.data.worlds.digit_words import NUMBERS, UNSEEN_DRAW, UNSEEN_READ
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.data.worlds.world import SPLITS, load_world, text_strings
from mllm_npu.errors import ConfigError
from mllm_npu.processing.tokenizer import load_tokenizer

KINDS = ("caption", "ocr", "interleaved", "text", "instruction")


def rows_of(folder, kind, split):
    return [
        row for path in sorted((folder / kind).glob(f"{split}-*.tar")) for row in read_rows(path)
    ]


def test_every_kind_and_split_is_there(digits_folder):
    world = load_world(digits_folder)
    assert set(world.counts) == {*KINDS, "unseen"}
    for kind in KINDS:
        for split in SPLITS:
            assert len(rows_of(digits_folder, kind, split)) == world.counts[kind][split] > 0


def test_nothing_is_composed_of_a_scan_of_another_split(digits_folder):
    splits = json.loads((digits_folder / "splits.json").read_text())
    sets = {split: set(ids) for split, ids in splits.items()}
    assert not sets["train"] & sets["valid"]
    assert not sets["train"] & sets["test"]
    assert not sets["valid"] & sets["test"]
    for kind in (*KINDS, "unseen"):
        for split in SPLITS:
            for row in rows_of(digits_folder, kind, split):
                assert set(row.json()["meta"]["scans"]) <= sets[split]


def test_pictures_of_training_are_not_in_the_test(digits_folder):
    def pictures(split):
        kinds = ("caption", "interleaved", "instruction")
        rows = (row for kind in kinds for row in rows_of(digits_folder, kind, split))
        return {row.members[name] for row in rows for name in row.picture_names()}

    assert not pictures("train") & pictures("test")
    assert not pictures("train") & pictures("valid")


def test_sentences_are_of_one_split_only(digits_folder):
    texts = {
        split: {row.json()["text"] for row in rows_of(digits_folder, "text", split)}
        for split in SPLITS
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["valid"]


def test_unseen_wordings_are_in_no_training_row(digits_folder):
    def frame(wording):
        return [piece.lower().rstrip(".?") for piece in wording.split("{d}")]

    training = [
        text.lower()
        for kind in KINDS
        for row in rows_of(digits_folder, kind, "train")
        for text in text_strings(row.json())
    ]
    for wording in (*UNSEEN_DRAW, *UNSEEN_READ):
        pieces = frame(wording)
        assert not any(all(piece in text for piece in pieces) for text in training), wording


def test_numbers_are_single_tokens(digits_folder):
    tokenizer = load_tokenizer(path=str(digits_folder / "tokenizer"))
    for name in (*NUMBERS, *map(str, range(10))):
        assert len(tokenizer.tokenize(name)) == 1, name
    for name in NUMBERS:
        assert len(tokenizer.tokenize(f" {name}")) == 1, name
    assert tokenizer.decode(tokenizer.encode("Draw a 7, größer!")) == "Draw a 7, größer!"


def test_the_same_arguments_give_the_same_world(tmp_path):
    told, begun = [], time.process_time()
    first = make_digits(tmp_path / "a", scale=0.01, progress=lambda *step: told.append(step))
    assert time.process_time() - begun < 4
    assert make_digits(tmp_path / "b", scale=0.01).sha256 == first.sha256
    assert make_digits(tmp_path / "a", scale=0.01, seed=1).sha256 != first.sha256
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_out_of_range_is_refused(tmp_path, scale):
    with pytest.raises(ConfigError, match="scale="):
        make_digits(tmp_path, scale=scale)


def test_the_full_world_has_what_the_report_needs(tmp_path):
    world = make_digits(tmp_path, num_strips=5, num_pages=5, num_conversations=20)
    test = [row.json()["meta"] for row in rows_of(tmp_path, "instruction", "test")]
    counts = {kind: sum(meta["kind"] == kind for meta in test) for kind in ("read", "sum", "draw")}
    assert counts == {"read": 360, "sum": 300, "draw": 200}
    unseen = [row.json()["meta"] for row in rows_of(tmp_path, "unseen", "test")]
    assert sum(meta["kind"] == "draw" for meta in unseen) >= 200
    assert world.counts["ocr"]["test"] == 300
    assert world.counts["text"]["train"] > 900
