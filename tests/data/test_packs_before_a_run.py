"""Packs that are looked at before a run starts: to measure by, and to try the memory with."""

from itertools import islice

import pytest
import torch

from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import DataError


@pytest.fixture
def load(digits_folder, digits_processor):
    def build(**changes):
        sources = [
            Source(name="ocr", shards=f"{digits_folder}/ocr/train-*.tar", task=Ocr(), weight=2),
            Source(name="text", shards=f"{digits_folder}/text/train-*.tar", task=PureText()),
        ]
        settings = {
            "sources": sources,
            "processor": digits_processor,
            "tokens_per_pack": 200,
            "seed": 1,
            "samples_per_epoch": 60,
        }
        return PackedBatches(**{**settings, **changes})

    return build


def keys(batches):
    return [batch.keys for batch in batches]


def same(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("input_ids", "tiles", "targets", "read_slots")
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_rank_sees_the_packs_of_all_ranks_in_their_order(load, world_size):
    expected = list(islice(load(), 9))
    for rank in range(world_size):
        found = list(islice(load(rank=rank, world_size=world_size).preview(), 9))
        assert all(same(one, other) for one, other in zip(expected, found, strict=True))
        assert keys(found) == keys(expected)


@pytest.mark.parametrize("look", ["preview", "rehearsal"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_look_moves_nothing_and_disturbs_no_iteration(load, look, num_workers):
    expected = keys(islice(load(), 8))
    loader = load(num_workers=num_workers)
    assert len(list(islice(getattr(loader, look)(), 3))) == 3
    assert loader.state_dict() == load().state_dict()
    found = keys(islice(loader, 4))
    before = loader.state_dict()
    list(islice(getattr(loader, look)(), 3))
    assert loader.state_dict() == before
    assert found + keys(islice(loader, 4)) == expected


def test_a_preview_begins_at_the_start_also_when_the_run_is_further(load):
    start = keys(islice(load(), 3))
    loader = load()
    list(islice(loader, 5))
    assert keys(islice(loader.preview(), 3)) == start


def test_a_preview_goes_on_behind_the_first_epoch(load):
    loader = load()
    packs = len(loader.order.epoch(0)) + len(loader.order.epoch(1))
    assert keys(islice(loader.preview(), packs)) == keys(islice(load(), packs))


def test_the_largest_pack_is_tried_behind_a_quarter_of_it(load):
    loader = load()
    few, *large = loader.rehearsal()
    packs = loader.order.epoch(0)
    assert len(large) in (1, 2)
    most = max(pack.num_tokens for pack in packs)
    by_tokens = large[0]
    planned = next(pack for pack in packs if pack.num_tokens == most)
    assert by_tokens.num_samples == len(planned)
    assert few.num_samples == max(1, len(planned) // 4)
    assert by_tokens.keys[: few.num_samples] == few.keys[: few.num_samples]
    everything = list(islice(load(), len(packs)))
    assert by_tokens.num_tokens >= max(batch.num_tokens for batch in everything) - 10
    assert (
        max(batch.tiles.shape[0] for batch in large)
        >= max(batch.tiles.shape[0] for batch in everything) - 1
    )  # the blank one


def test_the_pack_of_most_tiles_is_tried_where_it_is_another(load):
    loader = load(tiles_per_pack=12)
    packs = loader.order.epoch(0)
    tokens = max(packs, key=lambda pack: pack.num_tokens)
    tiles = max(packs, key=lambda pack: (pack.num_tiles, pack.num_tokens))
    assert tokens.num_tiles < tiles.num_tiles
    tried = loader.rehearsal()
    assert [batch.num_samples for batch in tried[1:]] == [len(tokens), len(tiles)]
    assert tried[2].tiles.shape[0] >= tiles.num_tiles > 5


@pytest.mark.parametrize(
    ("budget", "size", "limit"),
    [("tokens_per_pack", "num_tokens", 45), ("tiles_per_pack", "num_tiles", 4)],
)
def test_a_sample_beyond_the_budgets_does_not_stand_for_the_largest_pack(load, budget, size, limit):
    """It has a pack of its own and is left out of it, so a trial of that would try nothing."""
    loader = load(**{budget: limit})
    sizes = [getattr(pack, size) for pack in loader.order.epoch(0)]
    assert max(sizes) > limit
    few, *large = loader.rehearsal()
    assert all(batch.num_samples > 0 for batch in (few, *large))
    everything = list(islice(load(**{budget: limit}), len(sizes)))
    assert large[0].num_tokens >= max(batch.num_tokens for batch in everything) - 10


def test_every_rank_tries_the_same_packs(load):
    tried = [keys(load(rank=rank, world_size=3).rehearsal()) for rank in range(3)]
    assert tried[0] == tried[1] == tried[2]


@pytest.mark.parametrize("look", ["preview", "rehearsal"])
def test_what_is_left_out_of_a_look_is_counted_when_it_is_trained_on(
    load, tmp_path, make_row, png, look
):
    texts = [b"a seven", b"", b"an eight", b"a nine"] * 3
    rows = [make_row(f"r{n:04d}", txt=text, png=png()) for n, text in enumerate(texts)]
    write_shard(tmp_path / "a.tar", rows)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    quarantine = tmp_path / "quarantine.jsonl"
    loader = load(sources=[source], samples_per_epoch=None, quarantine=quarantine)
    packs = len(loader.order.epoch(0))
    list(islice(getattr(loader, look)(), packs))
    assert loader.skipped == {}
    assert not quarantine.exists()
    list(islice(loader, packs))
    assert loader.skipped == {"caption empty": 3}


@pytest.mark.parametrize("look", ["preview", "rehearsal"])
def test_a_vanished_shard_is_said_at_the_look(load, tmp_path, make_row, png, look):
    rows = [make_row(f"r{n:04d}", txt=b"a seven", png=png()) for n in range(4)]
    write_shard(tmp_path / "a.tar", rows)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    loader = load(sources=[source], samples_per_epoch=None)
    source._shards.close()
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"^Shard .*a\.tar cannot be read"):
        list(islice(getattr(loader, look)(), 1))
