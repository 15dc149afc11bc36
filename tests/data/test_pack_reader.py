import pytest
import torch

from mllm_npu.data.hashing import random_of
from mllm_npu.data.pack import Pack, Pick
from mllm_npu.data.pack_reader import NoPack, PackReader
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption


@pytest.fixture
def source(tmp_path, make_row, png):
    rows = [
        make_row("a", txt=b"a seven", png=png()),
        make_row("bad", txt=b"", png=png()),
        make_row("b", txt=b"which digit is this? " * 3, png=png(48, 16)),
        make_row("broken", txt=b"x", png=b"nothing"),
        make_row("small", txt=b"a seven", png=png(4, 4)),
    ]
    write_shard(tmp_path / "a.tar", rows)
    task = Caption(draw_share=0.5, min_resolution=8)
    return Source(name="set", shards=str(tmp_path / "a.tar"), task=task)


def reader_of(source, processor, tokens=200, seed=0, **changes):
    return PackReader(
        sources=[source], processor=processor, tokens_per_pack=tokens, seed=seed, **changes
    )


def pack_of(*picks, num_tiles=8):
    return Pack(tuple(Pick(*pick) for pick in picks), num_tokens=0, num_tiles=num_tiles)


def test_samples_come_in_planned_order_and_skips_are_told(source, processor):
    read = reader_of(source, processor)[pack_of(*((0, n, 0, 0) for n in (2, 1, 0, 3, 4)))]
    assert [key for key in read.batch.keys if key] == ["b", "a"]
    outcomes = read.outcomes
    assert [outcome.reason for outcome in outcomes] == [
        "",
        "caption empty",
        "",
        "picture cannot be read",
        "picture too small",
    ]
    assert [outcome.is_fault for outcome in outcomes if outcome.reason] == [True, True, False]
    told = outcomes[1]
    assert (told.source, told.key, told.sample) == ("set", "bad", 1)
    assert told.shard.endswith("a.tar")
    assert read.failure == ""


@pytest.mark.parametrize("num_tiles", [0, 1, 3, 50])
def test_the_batch_does_not_depend_on_the_planned_tiles(source, processor, num_tiles):
    """Too small a buffer is made up for, too large a one leaves nothing behind."""
    picks = [(0, 2, 0, 0), (0, 3, 0, 0), (0, 0, 0, 1), (0, 2, 1, 1)]
    expected = reader_of(source, processor)[pack_of(*picks)].batch
    found = reader_of(source, processor)[pack_of(*picks, num_tiles=num_tiles)].batch
    assert torch.equal(found.tiles, expected.tiles)
    assert len(found.tiles) == 6
    alone = [
        reader_of(source, processor).read(Pick(*pick)).tiles for pick in (picks[0], *picks[2:])
    ]
    assert torch.equal(found.tiles, torch.cat(alone))


def test_a_samples_randomness_follows_from_seed_visit_source_and_number(source, processor):
    read = reader_of(source, processor, seed=5)[pack_of((0, 0, 2, 1))]
    rng = random_of(5, 2, "set", 0)
    expected = processor.encode(source.conversation(0, rng, 1), rng=rng)
    assert torch.equal(read.batch.input_ids[: expected.num_tokens], expected.input_ids)


def test_the_form_decides_what_becomes_of_a_row(source, processor):
    reader = reader_of(source, processor)
    read, drawn = (reader[pack_of((0, 0, 0, form))].batch for form in (0, 1))
    assert (read.num_drawn, drawn.num_drawn) == (0, 1)


def test_a_pack_of_broken_samples_is_a_blank_batch(source, processor):
    read = reader_of(source, processor)[pack_of((0, 1, 0, 0), (0, 3, 0, 0))]
    assert read.batch.num_samples == 0
    assert read.batch.num_targets == 0
    assert len(read.batch.tiles) == 1
    assert not read.batch.tiles.any()


def test_no_batch_goes_over_a_budget(source, processor):
    full = reader_of(source, processor)
    lengths = [full[pack_of((0, n, 0, 0))].batch.sequence_ends[0] for n in (0, 2)]
    tight = reader_of(source, processor, tokens=sum(lengths) - 1)
    read = tight[pack_of((0, 0, 0, 0), (0, 2, 0, 0))]
    assert [outcome.reason for outcome in read.outcomes] == [
        "",
        "longer than estimated, so its pack is full",
    ]
    assert len(read.batch.tiles) == 2  # its own, and the blank one for drawing
    tighter = reader_of(source, processor, tokens=lengths[1] - 1)
    assert tighter[pack_of((0, 2, 0, 0))].outcomes[0].reason == "longer than tokens_per_pack"
    few = reader_of(source, processor, tiles_per_pack=3)[pack_of((0, 2, 0, 0), (0, 0, 0, 0))]
    assert [outcome.reason for outcome in few.outcomes] == ["more tiles than tiles_per_pack", ""]


def test_a_vanished_shard_is_a_failure_not_a_skip(source, processor, tmp_path):
    source.row(0)
    source._shards.close()
    (tmp_path / "a.tar").unlink()
    read = reader_of(source, processor)[pack_of((0, 0, 0, 0))]
    assert read.batch is None
    assert "a.tar cannot be read" in read.failure


def test_a_pack_that_could_not_be_planned_is_a_failure(source, processor):
    read = reader_of(source, processor)[NoPack("the shard is gone")]
    assert (read.batch, read.failure) == (None, "the shard is gone")
