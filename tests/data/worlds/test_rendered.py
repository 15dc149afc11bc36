from itertools import islice
from random import Random

import numpy as np
import pytest

from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import write_shard
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.worlds.rendered import RenderedSource, render_row
from mllm_npu.errors import ConfigError, SkipSample
from mllm_npu.processing.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def processor(scenes_folder, make_processor):
    tokenizer = load_tokenizer(path=str(scenes_folder / "tokenizer"))
    return make_processor(tokenizer, picture_size=32)


@pytest.fixture
def source(scenes_folder):
    def build(kind="draw", task=None, **options):
        shards = str(scenes_folder / kind / "train-*.tar")
        return RenderedSource(name=kind, shards=shards, task=task or Instruction(), **options)

    return build


def drawn(talk):
    return np.asarray(talk.turns[-1].parts[-1].picture)


def test_pictures_are_drawn_anew_at_every_visit_and_purely(source):
    scenes = source()
    first, again, other = (scenes.conversation(0, Random(seed)) for seed in (0, 0, 1))
    assert (drawn(first) == drawn(again)).all()
    assert (drawn(first) != drawn(other)).any()
    assert (first.source, first.task) == ("draw", "instruction")


def test_a_row_is_always_drawn_the_same_way(source):
    scenes = source("caption", Caption())
    assert scenes.row(1).picture() == scenes.row(1).picture()
    assert source("caption", Caption(), picture_size=64).row(1).picture().size == (64, 64)


def test_an_edit_changes_nothing_but_what_it_says(source):
    scenes = source("edit", Edit())
    checked = 0
    for index in range(len(scenes)):
        if scenes.row(index).json()["meta"]["operation"] != "recolor":
            continue
        talk = scenes.conversation(index, Random(index))
        before, after = np.asarray(talk.turns[0].parts[0].picture), drawn(talk)
        changed = (before != after).any(-1)
        assert changed.any()
        quarters = changed.reshape(2, 16, 2, 16).any((1, 3))
        assert quarters.sum() == 1
        checked += 1
    assert checked > 3


@pytest.mark.parametrize(
    ("kind", "task"), [("caption", Caption()), ("question", Instruction()), ("edit", Edit())]
)
def test_lengths_are_upper_bounds(source, processor, kind, task):
    scenes = source(kind, task)
    lengths = scenes.lengths(processor)
    for index in range(len(scenes)):
        for seed in range(2):
            talk = scenes.conversation(index, Random(seed))
            assert processor.encode(talk).num_tokens <= lengths[index]


def test_it_feeds_the_loader_and_resumes(source, processor):
    def load():
        return PackedBatches(
            sources=[source(), source("edit", Edit())],
            processor=processor,
            tokens_per_pack=200,
            seed=0,
        )

    loader = load()
    list(islice(loader, 3))
    state, expected = loader.state_dict(), next(loader)
    resumed = load()
    resumed.load_state_dict(state)
    assert (next(resumed).tiles == expected.tiles).all()
    assert not loader.skipped
    assert loader.sources[0].where(0).endswith("train-0000.tar")


def test_rows_without_scenes_are_skipped(make_row, tmp_path, processor):
    for value in ({}, {"scenes": []}, {"scenes": {"0.png": [["red"]]}}):
        with pytest.raises(SkipSample, match="scene"):
            render_row(make_row(json_member=value), Random(0), size=32)
    write_shard(tmp_path / "a.tar", [make_row(json_member={})])
    scenes = RenderedSource(name="x", shards=str(tmp_path / "a.tar"), task=Edit())
    assert scenes.lengths(processor).tolist() == [1]


def test_a_nameless_source_is_refused(scenes_folder):
    with pytest.raises(ConfigError):
        RenderedSource(name="", shards=str(scenes_folder / "draw" / "*.tar"), task=Edit())
