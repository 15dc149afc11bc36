from random import Random

import pytest
import torch

from mllm_npu.data.pack_reader import PackReader
from mllm_npu.data.plan import Pick
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption


@pytest.fixture
def source(tmp_path, make_row, png):
    rows = [
        make_row("a", txt=b"a seven", png=png()),
        make_row("bad", txt=b"", png=png()),
        make_row("b", txt=b"which digit is this? " * 3, png=png()),
        make_row("broken", txt=b"x", png=b"nothing"),
    ]
    write_shard(tmp_path / "a.tar", rows)
    return Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption(draw_share=0.5))


def reader_of(source, processor, tokens=200, seed=0):
    return PackReader(sources=[source], processor=processor, tokens_per_pack=tokens, seed=seed)


def test_samples_come_in_planned_order_and_skips_are_told(source, processor):
    read = reader_of(source, processor)[tuple(Pick(0, n, 0) for n in (2, 1, 0, 3))]
    assert [key for key in read.batch.keys if key] == ["b", "a"]
    reasons = [outcome.reason for outcome in read.outcomes]
    assert reasons == ["", "caption empty", "", "picture cannot be read"]
    assert "a.tar" in read.outcomes[1].where
    assert read.outcomes[1].where.startswith("set (")
    assert read.failure == ""


def test_a_samples_randomness_follows_from_seed_visit_source_and_number(source, processor):
    pick = Pick(0, 0, 2)
    read = reader_of(source, processor, seed=5)[(pick,)]
    rng = Random("5/2/set/0")
    expected = processor.encode(source.conversation(0, rng), rng=rng)
    assert torch.equal(read.batch.input_ids[: expected.num_tokens], expected.input_ids)
    tokens = {
        tuple(reader_of(source, processor)[(Pick(0, 0, visit),)].batch.input_ids.tolist())
        for visit in range(12)
    }
    assert len(tokens) == 2


def test_a_pack_of_broken_samples_is_a_blank_batch(source, processor):
    read = reader_of(source, processor)[(Pick(0, 1, 0), Pick(0, 3, 0))]
    assert read.batch.num_samples == 0
    assert read.batch.num_targets == 0
    assert len(read.batch.tiles) == 1


def test_no_batch_goes_over_the_budget(source, processor):
    full = reader_of(source, processor)
    lengths = [full[(Pick(0, n, 0),)].batch.sequence_ends[0] for n in (0, 2)]
    tight = reader_of(source, processor, tokens=sum(lengths) - 1)
    read = tight[(Pick(0, 0, 0), Pick(0, 2, 0))]
    assert [outcome.reason for outcome in read.outcomes] == [
        "",
        "longer than estimated, so its pack is full",
    ]
    tighter = reader_of(source, processor, tokens=lengths[1] - 1)
    assert tighter[(Pick(0, 2, 0),)].outcomes[0].reason == "longer than tokens_per_pack"


def test_a_vanished_shard_is_a_failure_not_a_skip(source, processor, tmp_path):
    (tmp_path / "a.tar").unlink()
    read = reader_of(source, processor)[(Pick(0, 0, 0),)]
    assert read.batch is None
    assert "a.tar cannot be read" in read.failure
