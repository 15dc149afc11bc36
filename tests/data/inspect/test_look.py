"""A look holds real samples and packs, chosen by its seed and by nothing else."""

from collections import Counter

import pytest
import torch

from mllm_npu.data.inspect.look import Wish, take_look
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import ConfigError


def look(batches, **wish):
    return take_look(batches.order.plan, batches.reader, Wish(**wish))


def names(look):
    return [(view.source, view.key) for view in look.samples], [pack.number for pack in look.packs]


def test_a_look_has_what_was_wished(batches):
    seen = look(batches, num_samples=7, num_packs=2)
    assert (len(seen.samples), len(seen.packs)) == (7, 2)
    assert seen.sources == ("caption", "chat", "text")
    assert seen.tokens_per_pack == 256
    assert 0 <= seen.window < seen.num_windows


def test_samples_are_those_of_the_plan(batches):
    seen = look(batches, num_samples=8)
    window = batches.order.plan.window(0, seen.window)
    planned = {pick for pack in window.packs for pick in pack}
    assert len({view.pick for view in seen.samples}) == len(seen.samples)
    for view in seen.samples:
        assert view.pick in planned
        sample = batches.reader.read(view.pick)
        assert [
            number for piece in view.pieces for number in piece.ids
        ] == sample.input_ids.tolist()
        assert torch.equal(view.tiles, sample.tiles)


def test_packs_are_those_of_the_plan(batches):
    seen = look(batches, num_packs=3)
    window = batches.order.plan.window(0, seen.window)
    for pack in seen.packs:
        assert pack.planned_tokens == window.tokens[pack.number]
        used = len(pack.segments) + sum(pack.left_out.values())
        assert used == len(window.packs[pack.number])


def test_all_data_sets_take_turns(batches):
    counts = Counter(view.source for view in look(batches, num_samples=6).samples)
    assert counts == {"caption": 2, "chat": 2, "text": 2}


def test_both_directions_of_a_caption_are_shown(batches):
    for seed in range(3):
        seen = look(batches, num_samples=2, num_packs=0, source="caption", seed=seed)
        assert {view.num_drawn for view in seen.samples} == {0, 1}


def test_both_directions_come_first_where_prompts_make_many_forms(open_batches, world_folder):
    task = Caption(
        read_prompts=["what is this?", "say", "tell"], draw_prompts=["{caption}", "draw {caption}"]
    )
    shards = str(world_folder / "caption-*.tar")
    source = Source(name="caption", shards=shards, task=task, weight=1.0)
    batches = open_batches(sources=[source], plan_window=1000)
    seen = look(batches, num_samples=2, num_packs=0)
    assert {view.num_drawn for view in seen.samples} == {0, 1}


def test_what_packs_leave_out_is_counted(batches):
    wholes = [look(batches, num_samples=0, num_packs=900, seed=seed) for seed in range(8)]
    assert len({whole.window for whole in wholes}) > 1
    for whole in wholes:
        left_out = Counter()
        for pack in whole.packs:
            left_out.update(pack.left_out)
        assert whole.left_out == left_out
    assert any(whole.left_out for whole in wholes)


def test_the_same_seed_gives_the_same_look(batches):
    assert names(look(batches, seed=5)) == names(look(batches, seed=5))
    assert len({str(names(look(batches, seed=seed))) for seed in range(4)}) > 1


def test_one_data_set_alone(batches):
    seen = look(batches, source="chat", num_samples=3, num_packs=2)
    assert {view.source for view in seen.samples} == {"chat"}
    for pack in seen.packs:
        assert "chat" in {part.source for part in pack.segments}


def test_other_epochs_have_other_visits(batches):
    seen = look(batches, epoch=2, num_samples=4)
    assert seen.epoch == 2
    assert {view.pick.visit for view in seen.samples} == {2}


def test_an_unknown_data_set_is_refused(batches):
    with pytest.raises(ConfigError, match="the data sets are caption, chat, text"):
        look(batches, source="captions")


def test_a_data_set_without_weight_is_refused(open_batches):
    batches = open_batches()
    batches.sources[1].weight = 0.0
    batches = open_batches(sources=batches.sources)
    with pytest.raises(ConfigError, match="takes no sample of it"):
        look(batches, source="chat")


@pytest.mark.parametrize("wish", [{"num_samples": -1}, {"num_packs": -1}, {"epoch": -1}])
def test_negative_numbers_are_refused(wish):
    with pytest.raises(ConfigError, match="from 0 on"):
        Wish(**wish)


def test_nothing_wished_is_nothing_read(batches):
    seen = look(batches, num_samples=0, num_packs=0)
    assert (seen.samples, seen.packs, seen.left_out) == ((), (), {})


def test_more_than_there_is_gives_what_there_is(batches):
    seen = look(batches, num_samples=900, num_packs=900)
    window = batches.order.plan.window(0, seen.window)
    assert len(seen.packs) == len(window.packs)
    assert 0 < len(seen.samples) <= sum(map(len, window.packs))


def test_what_cannot_be_used_is_passed_over_and_counted(open_batches, make_row, tmp_path):
    rows = [make_row(f"row{n}", txt=b"no </s> please" if n % 2 else b"seven") for n in range(12)]
    write_shard(tmp_path / "text-0.tar", rows)
    text = Source(name="text", shards=str(tmp_path / "*.tar"), task=PureText())
    seen = look(open_batches(sources=[text]), num_samples=12, num_packs=0)
    assert len(seen.samples) == 6
    assert seen.left_out == {"A text spells a control token": 6}


def test_progress_reaches_the_end(batches):
    told = []
    take_look(
        batches.order.plan,
        batches.reader,
        Wish(num_samples=3, num_packs=2),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, 5) for n in range(1, 6)]
