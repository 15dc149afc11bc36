import json

import pytest

from mllm_npu.data.index import load_index, read_rows
from mllm_npu.data.worlds.world import WorldWriter, load_world, pack_json, text_strings
from mllm_npu.errors import DataError
from mllm_npu.processing.special_tokens import ImageIds
from mllm_npu.processing.tokenizer import load_tokenizer


def rows(make_row, count, text="a cat and a dog"):
    return (
        make_row(f"r{n}", json_member={"caption": text, "meta": {"kind": "hidden"}})
        for n in range(count)
    )


def finish(writer, **changes):
    settings = {
        "name": "tiny",
        "version": 3,
        "settings": {"seed": 1},
        "splits": {"train": [1]},
        "vocab_size": 280,
        "num_slots": 4,
        "whole_words": ("seven",),
    }
    return writer.finish(**{**settings, **changes})


def test_a_world_is_shards_indexes_tokenizer_and_papers(tmp_path, make_row):
    told = []
    writer = WorldWriter(
        folder=tmp_path, total=150, progress=lambda done, total: told.append((done, total))
    )
    writer.write("caption", "train", rows(make_row, 120))
    writer.write("caption", "test", rows(make_row, 30))
    world = finish(writer)
    assert world == load_world(tmp_path)
    assert world.counts == {"caption": {"train": 120, "test": 30}}
    assert (world.name, world.version, world.settings) == ("tiny", 3, {"seed": 1})
    assert len(load_index(tmp_path / "caption" / "train-0000.tar")) == 120
    assert json.loads((tmp_path / "splits.json").read_text()) == {"train": [1]}
    assert told == [(100, 150), (150, 150)]
    assert not list(tmp_path.rglob("*.partial"))


def test_the_tokenizer_knows_answers_as_whole_words_and_image_tokens(tmp_path, make_row):
    writer = WorldWriter(folder=tmp_path, total=5)
    writer.write("caption", "train", rows(make_row, 5))
    world = finish(writer)
    tokenizer = load_tokenizer(path=str(tmp_path / "tokenizer"))
    assert tokenizer.tokenize("seven") == ["seven"]
    assert tokenizer.tokenize(" seven") == ["Ġseven"]
    assert len(tokenizer) == world.vocab_size
    assert len(ImageIds.of(tokenizer).slots) == 4


def test_the_tokenizer_is_trained_on_training_texts_only(tmp_path, make_row):
    writer = WorldWriter(folder=tmp_path, total=60)
    writer.write("caption", "train", rows(make_row, 30, text="wonderful"))
    writer.write("caption", "test", rows(make_row, 30, text="extraordinary"))
    finish(writer, vocab_size=300)
    tokenizer = load_tokenizer(path=str(tmp_path / "tokenizer"))
    assert len(tokenizer.tokenize("wonderful")) == 1
    assert len(tokenizer.tokenize("extraordinary")) > 5


def test_large_kinds_are_cut_into_shards(tmp_path, make_row, monkeypatch):
    monkeypatch.setattr("mllm_npu.data.worlds.world._ROWS_PER_SHARD", 4)
    writer = WorldWriter(folder=tmp_path, total=10)
    writer.write("caption", "train", rows(make_row, 10))
    paths = sorted((tmp_path / "caption").glob("train-*.tar"))
    assert [path.name for path in paths] == [f"train-000{n}.tar" for n in range(3)]
    assert [row.key for path in paths for row in read_rows(path)] == [f"r{n}" for n in range(10)]


def test_an_earlier_world_is_replaced_and_an_unfinished_one_is_none(tmp_path, make_row):
    writer = WorldWriter(folder=tmp_path, total=3)
    writer.write("caption", "train", rows(make_row, 3))
    first = finish(writer)
    again = WorldWriter(folder=tmp_path, total=2)
    again.write("caption", "train", rows(make_row, 2))
    with pytest.raises(DataError, match="mllm-npu data digits"):
        load_world(tmp_path)
    assert finish(again).sha256 != first.sha256
    assert len(list((tmp_path / "caption").iterdir())) == 2


def test_texts_for_the_tokenizer_leave_out_what_is_for_the_judge():
    row = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "parts": [{"text": "b"}, {"image": "0.png"}],
        "conversations": ["c", "d"],
        "meta": {"text": "hidden"},
        "caption": "e",
    }
    assert sorted(text_strings(row)) == ["a", "b", "c", "d", "e"]
    assert json.loads(pack_json(row)) == row
