from itertools import islice

import pytest
import torch

from mllm_npu.batch import Batch
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import CheckpointError, ConfigError, DataError
from mllm_npu.processing.augment import AffineAugment


def sources_of(folder):
    return [
        Source(name="caption", shards=f"{folder}/caption/train-*.tar", task=Caption(), weight=2),
        Source(name="text", shards=f"{folder}/text/train-*.tar", task=PureText()),
        Source(name="chat", shards=f"{folder}/instruction/valid-*.tar", task=Instruction()),
    ]


@pytest.fixture(scope="module")
def processor(digits_processor, make_processor):
    augment = AffineAugment(rotation=8, shift=0.1, num_variants=4)
    return make_processor(digits_processor.tokenizer, augment=augment)


@pytest.fixture
def load(digits_folder, processor):
    def build(**changes):
        settings = {
            "sources": sources_of(digits_folder),
            "processor": processor,
            "tokens_per_pack": 160,
            "seed": 1,
            "samples_per_epoch": 60,
        }
        return PackedBatches(**{**settings, **changes})

    return build


def names(batch):
    return [(source, key) for source, key in zip(batch.sources, batch.keys, strict=True) if source]


def equal(one: Batch, other: Batch):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("input_ids", "tiles", "targets", "read_slots", "draw_slots", "pictures")
    )


def test_an_epoch_gives_each_source_its_share_and_packs_keep_the_budget(load):
    batches = list(load(epochs=1))
    found = [name for batch in batches for name in names(batch)]
    assert len(found) == 60
    counts = [
        sum(source == wanted for source, _ in found) for wanted in ("caption", "text", "chat")
    ]
    assert counts == [30, 15, 15]
    for batch in batches:
        blank = 0 if batch.sources[-1] else batch.num_tokens - batch.sequence_ends[-2]
        assert batch.num_tokens - blank <= 160


def test_every_sample_once_per_epoch_with_weights_equal_to_sizes(load, digits_folder):
    sources = sources_of(digits_folder)
    for source in sources:
        source.weight = len(source)
    batches = list(load(sources=sources, samples_per_epoch=None, epochs=2))
    found = sorted(name for batch in batches for name in names(batch))
    everything = [(s.name, s.row(n).key) for s in sources for n in range(len(s))]
    assert found == sorted(everything * 2)


def test_batches_go_on_without_end_and_epochs_differ(load):
    loader = load()
    first = [names(batch) for batch in islice(loader, len(loader.plan(0)))]
    second = [names(batch) for batch in islice(loader, len(loader.plan(1)))]
    assert first != second
    assert loader.state_dict()["epoch"] == 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(load, num_workers):
    expected = list(islice(load(), 14))
    found = list(islice(load(num_workers=num_workers), 14))
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))
    assert [batch.keys for batch in expected] == [batch.keys for batch in found]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_resume_at_every_position_gives_the_same_following_samples(load, world_size):
    total = 3 * len(load().plan(0)) // world_size
    ranks = [load(rank=rank, world_size=world_size) for rank in range(world_size)]
    uninterrupted, states = [], []
    for _ in range(total):
        states.append(ranks[0].state_dict())
        assert all(rank.state_dict() == states[-1] for rank in ranks)
        uninterrupted.append([next(rank) for rank in ranks])
    resumed = [load(rank=rank, world_size=world_size) for rank in range(world_size)]
    for position in range(total):
        for rank, loader in enumerate(resumed):
            loader.load_state_dict(states[position])
            follow = list(islice(loader, 2))[: total - position]
            assert [batch.keys for batch in follow] == [
                step[rank].keys for step in uninterrupted[position : position + 2]
            ]
            assert equal(follow[0], uninterrupted[position][rank])


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 2)])
def test_resume_with_another_number_of_workers(load, before, after):
    expected = [names(batch) for batch in islice(load(), 12)]
    first = load(num_workers=before)
    found = [names(batch) for batch in islice(first, 5)]
    second = load(num_workers=after)
    second.load_state_dict(first.state_dict())
    found += [names(batch) for batch in islice(second, 7)]
    assert found == expected


def test_a_changed_world_size_neither_repeats_nor_loses_a_sample(load):
    """A ledger over three epochs on one, then four, then two ranks."""
    num_epochs, ledger, state = 3, [], None
    all_packs = [pack for epoch in range(num_epochs) for pack in load().plan(epoch)]
    for world_size, steps in ((1, 7), (4, 2), (2, (len(all_packs) - 15) // 2)):
        ranks = [load(rank=rank, world_size=world_size) for rank in range(world_size)]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        for _ in range(steps):
            ledger += [names(next(rank)) for rank in ranks]
        state = ranks[0].state_dict()
    expected = [names(batch) for batch in islice(load(), len(ledger))]
    assert ledger == expected
    assert len(ledger) >= len(all_packs) - 1


def test_the_last_step_of_the_last_epoch_is_whole(load):
    num_packs = sum(len(load().plan(epoch)) for epoch in range(2))
    counts = [len(list(load(rank=rank, world_size=4, epochs=2))) for rank in range(4)]
    assert counts == [num_packs // 4] * 4


def test_the_position_is_where_batches_were_handed_out_not_where_workers_are(load):
    loader = load(num_workers=2)
    next(loader)
    assert loader.state_dict()["consumed"] == 1


def test_state_is_plain_and_small(load):
    state = load().state_dict()
    assert set(state) == {"version", "epoch", "consumed", "plan"}
    assert all(type(value) in (int, str) for value in state.values())


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"tokens_per_pack": 170}, {"samples_per_epoch": 61}]
)
def test_a_position_of_another_plan_is_refused(load, changes):
    with pytest.raises(CheckpointError, match="Restore that configuration"):
        load(**changes).load_state_dict(load().state_dict())


def test_a_position_of_other_sources_or_versions_is_refused(load, digits_folder):
    fewer = load(sources=sources_of(digits_folder)[:2])
    with pytest.raises(CheckpointError, match="other sources"):
        fewer.load_state_dict(load().state_dict())
    with pytest.raises(CheckpointError, match="version 0"):
        load().load_state_dict({**load().state_dict(), "version": 0})


def captions(folder, make_row, png, texts):
    rows = [make_row(f"r{n:04d}", txt=text, png=png()) for n, text in enumerate(texts)]
    write_shard(folder / "a.tar", rows)
    return Source(name="set", shards=str(folder / "a.tar"), task=Caption())


def test_skipped_samples_are_counted(load, tmp_path, make_row, png):
    texts = [b"a seven", b"", b"an eight", b""]
    loader = load(sources=[captions(tmp_path, make_row, png, texts)], samples_per_epoch=None)
    used = sum(batch.num_samples for batch in islice(loader, len(loader.plan(0))))
    assert used == 2
    assert loader.skipped == {"caption empty": 2}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_hundred_skips_in_a_row_stop_with_the_shards_name(
    load, tmp_path, make_row, png, num_workers
):
    source = captions(tmp_path, make_row, png, [b""] * 120)
    loader = load(sources=[source], samples_per_epoch=None, num_workers=num_workers)
    with pytest.raises(DataError, match=r"100 samples in a row .*a\.tar.*caption empty"):
        list(islice(loader, 120))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_vanished_shard_stops_with_one_clear_message(load, tmp_path, make_row, png, num_workers):
    source = captions(tmp_path, make_row, png, [b"a seven"] * 4)
    loader = load(sources=[source], samples_per_epoch=None, num_workers=num_workers)
    source._shards._readers[0].close()
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"^Shard .*a\.tar cannot be read: No such file") as caught:
        next(loader)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "at least one"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_what_does_not_fit_is_refused(load, changes, message):
    with pytest.raises(ConfigError, match=message):
        load(**changes)


def test_two_sources_of_one_name_are_refused(load, digits_folder):
    with pytest.raises(ConfigError, match="names that differ"):
        load(sources=sources_of(digits_folder)[:1] * 2)


@pytest.mark.parametrize("tokens", [0, -5])
def test_a_pack_without_room_is_refused_at_once(load, tokens):
    with pytest.raises(ConfigError, match=f"tokens_per_pack={tokens}"):
        load(tokens_per_pack=tokens)


def test_a_source_without_samples_is_named(load, digits_folder, tmp_path):
    write_shard(tmp_path / "none.tar", [])
    empty = Source(name="none", shards=str(tmp_path / "none.tar"), task=PureText())
    with pytest.raises(ConfigError, match=r"\['none'\] have a weight and no samples"):
        load(sources=[*sources_of(digits_folder), empty])
