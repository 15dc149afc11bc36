from itertools import islice
from random import Random

import numpy as np
import pytest

from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import write_shard
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.worlds import rendered
from mllm_npu.data.worlds.rendered import RenderedSource, render_row
from mllm_npu.errors import ConfigError, SkipSample
from mllm_npu.processing.conversation import ReadImage, Text
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
    ("kind", "task"),
    [
        ("caption", Caption()),
        ("caption", Caption(chat=True, draw_prompts=["{caption}", "draw {caption}"])),
        ("question", Instruction()),
        ("edit", Edit()),
        ("draw", Instruction(system="be brief")),
    ],
)
def test_every_form_is_as_long_as_told_at_every_visit(source, processor, kind, task):
    scenes = source(kind, task)
    table = scenes.forms(0, processor)
    tokens = table.tokens(processor.length_rule, processor.any_resolution)
    tiles = table.tiles(processor.any_resolution)
    assert len(table) == scenes.shard_sizes[0] > 3
    for index in range(len(table)):
        for form in range(table.first[index + 1] - table.first[index]):
            sample = processor.encode(scenes.conversation(index, Random(form), form))
            place = table.first[index] + form
            assert (sample.num_tokens, len(sample.tiles)) == (tokens[place], tiles[place])


def test_nothing_is_drawn_to_measure(source, processor, monkeypatch):
    scenes = source("edit", Edit(), picture_size=48)
    monkeypatch.setattr(rendered, "render", lambda *_, **__: pytest.fail("drawn"))
    table = scenes.forms(0, processor)
    assert set(map(tuple, table.reads.tolist())) == {(48, 48)}
    assert scenes.totals(0, processor) == table.totals()


def test_forms_are_kept_by_the_size_of_the_pictures(source, processor, monkeypatch):
    small, large = source("edit", Edit(), picture_size=32), source("edit", Edit(), picture_size=96)
    assert small.fingerprint() != large.fingerprint()
    first, second = small.forms(0, processor), large.forms(0, processor)
    monkeypatch.setattr(Edit, "forms", lambda *_: pytest.fail("measured again"))
    again = (source("edit", Edit(), picture_size=size).forms(0, processor) for size in (32, 96))
    assert [table.reads.max() for table in again] == [first.reads.max(), second.reads.max()]
    assert (first.reads.max(), second.reads.max()) == (32, 96)


def test_a_form_is_what_is_asked_for(source):
    scenes = source("caption", Caption())
    kinds = [
        [type(scenes.conversation(n, Random(n), form).turns[0].parts[0]) for n in range(4)]
        for form in (0, 1)
    ]
    assert kinds == [[ReadImage] * 4, [Text] * 4]


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
    table = scenes.forms(0, processor)
    assert (len(table), table.text.tolist(), table.totals().num_samples) == (1, [], 0)


def test_a_nameless_source_is_refused(scenes_folder):
    with pytest.raises(ConfigError):
        RenderedSource(name="", shards=str(scenes_folder / "draw" / "*.tar"), task=Edit())
