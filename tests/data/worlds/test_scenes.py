from random import Random

import pytest

from mllm_npu.data.index import read_rows
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.worlds.scene_pictures import parse_scene, split_of
from mllm_npu.data.worlds.scene_words import WHOLE_WORDS
from mllm_npu.data.worlds.scene_words import caption as caption_of
from mllm_npu.data.worlds.scenes import make_scenes
from mllm_npu.data.worlds.world import SPLITS, load_world
from mllm_npu.errors import ConfigError
from mllm_npu.processing.tokenizer import load_tokenizer

TASKS = {"caption": Caption(), "question": Instruction(), "draw": Instruction(), "edit": Edit()}


def rows_of(folder, kind, split):
    return [
        row for path in sorted((folder / kind).glob(f"{split}-*.tar")) for row in read_rows(path)
    ]


@pytest.mark.parametrize("kind", TASKS)
def test_every_composition_is_of_its_split(scenes_folder, kind):
    world = load_world(scenes_folder)
    for split in SPLITS:
        rows = rows_of(scenes_folder, kind, split)
        assert len(rows) == world.counts[kind][split] > 0
        for row in rows:
            for scene in row.json()["scenes"].values():
                assert split_of(parse_scene(scene)) == split


@pytest.mark.parametrize("kind", TASKS)
def test_held_out_rows_bring_pictures_and_training_rows_do_not(scenes_folder, kind):
    for row in rows_of(scenes_folder, kind, "test"):
        assert set(row.picture_names()) == set(row.json()["scenes"])
        TASKS[kind].to_conversation(row, Random(0))
    for row in rows_of(scenes_folder, kind, "train"):
        assert list(row.members) == ["json"]


def test_rows_tell_the_judge_what_is_right(scenes_folder):
    for row in rows_of(scenes_folder, "question", "test"):
        meta = row.json()["meta"]
        assert row.json()["messages"][1]["content"][0]["text"] == meta["answer"]
        if meta["kind"] == "describe":
            assert meta["answer"] == caption_of(parse_scene(meta["objects"]))
    for row in rows_of(scenes_folder, "edit", "test"):
        meta, scenes = row.json()["meta"], row.json()["scenes"]
        assert (meta["before"], meta["after"]) == (scenes["source.png"], scenes["target.png"])
        assert meta["before"] != meta["after"]
    for row in rows_of(scenes_folder, "draw", "test"):
        prompt = row.json()["messages"][0]["content"][0]["text"]
        assert caption_of(parse_scene(row.json()["meta"]["objects"])) in prompt


def test_answers_are_single_tokens(scenes_folder):
    tokenizer = load_tokenizer(path=str(scenes_folder / "tokenizer"))
    for word in WHOLE_WORDS:
        assert len(tokenizer.tokenize(word)) == len(tokenizer.tokenize(f" {word}")) == 1, word


def test_the_same_arguments_give_the_same_world(tmp_path):
    first = make_scenes(tmp_path / "a", scale=0.003)
    assert make_scenes(tmp_path / "b", scale=0.003).sha256 == first.sha256
    assert make_scenes(tmp_path / "a", scale=0.003, seed=1).sha256 != first.sha256
    with pytest.raises(ConfigError, match="scale=2"):
        make_scenes(tmp_path / "c", scale=2)
