import gc
import json
import multiprocessing
import time
from collections import Counter
from itertools import islice

import fsspec
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


def epoch_of(loader, number=0):
    return loader.order.epoch(number)


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
    first = [names(batch) for batch in islice(loader, len(epoch_of(loader)))]
    second = [names(batch) for batch in islice(loader, len(epoch_of(loader, 1)))]
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
    total = 3 * len(epoch_of(load())) // world_size
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


@pytest.mark.parametrize("workers", [(0, 0, 0), (1, 2, 0), (2, 0, 1)])
def test_a_changed_world_size_neither_repeats_nor_loses_a_sample(load, digits_folder, workers):
    """A ledger over three epochs on one, then four, then two ranks, with changing workers."""
    sources = sources_of(digits_folder)
    for source in sources:
        source.weight = len(source)
    common = {"sources": sources, "samples_per_epoch": None, "tokens_per_pack": 260, "epochs": 3}
    num_packs = sum(len(epoch_of(load(**common), epoch)) for epoch in range(3))
    ledger, state = Counter(), None
    third = num_packs // 3
    plans = zip((1, 4, 2), (third, third // 4, num_packs), workers, strict=True)
    for world_size, most_steps, num_workers in plans:
        ranks = [
            load(rank=rank, world_size=world_size, num_workers=num_workers, **common)
            for rank in range(world_size)
        ]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        for step in islice(zip(*ranks, strict=True), most_steps):
            ledger.update(name for batch in step for name in names(batch))
            num_packs -= world_size
        assert all(rank.state_dict() == ranks[0].state_dict() for rank in ranks)
        state = ranks[0].state_dict()
        for rank in ranks:
            rank.close()
    assert num_packs in (0, 1)  # a last step that is not whole is left out
    everything = Counter({(s.name, s.row(n).key): 3 for s in sources for n in range(len(s))})
    missing, repeated = everything - ledger, ledger - everything
    assert not repeated
    assert (len(missing) > 0) == (num_packs == 1)
    left = epoch_of(load(**common), 2)[-1] if num_packs else ()
    assert sum(missing.values()) == len(left)


def test_the_last_step_of_the_last_epoch_is_whole(load):
    num_packs = sum(len(epoch_of(load(), epoch)) for epoch in range(2))
    counts = [len(list(load(rank=rank, world_size=4, epochs=2))) for rank in range(4)]
    assert counts == [num_packs // 4] * 4


def test_the_position_is_where_batches_were_handed_out_not_where_workers_are(load):
    loader = load(num_workers=2)
    next(loader)
    assert loader.state_dict()["consumed"] == len(epoch_of(loader)[0])


def test_a_loader_that_is_dropped_ends_its_workers_at_once(load):
    loader = load(num_workers=2)
    next(loader)
    begin = time.perf_counter()
    del loader
    gc.collect()
    assert time.perf_counter() - begin < 4
    assert not multiprocessing.active_children()


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
    used = sum(batch.num_samples for batch in islice(loader, len(epoch_of(loader))))
    assert used == 2
    assert loader.skipped == {"caption empty": 2}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_hundred_skips_in_a_row_stop_with_the_shards_name(
    load, tmp_path, make_row, png, num_workers
):
    source = captions(tmp_path, make_row, png, [b""] * 120)
    loader = load(sources=[source], samples_per_epoch=None, num_workers=num_workers)
    with pytest.raises(DataError, match=r"1\d\d samples in a row .*a\.tar.*caption empty"):
        list(islice(loader, 120))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_vanished_shard_stops_with_one_clear_message(load, tmp_path, make_row, png, num_workers):
    source = captions(tmp_path, make_row, png, [b"a seven"] * 4)
    loader = load(sources=[source], samples_per_epoch=None, num_workers=num_workers)
    source._shards.close()
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


def test_faults_are_listed_with_shard_key_and_reason(load, tmp_path, make_row, png):
    texts = [b"a seven", b"", b"an eight"] * 4
    quarantine = tmp_path / "run" / "quarantine.jsonl"
    loader = load(
        sources=[captions(tmp_path, make_row, png, texts)],
        samples_per_epoch=None,
        quarantine=quarantine,
    )
    list(islice(loader, len(epoch_of(loader)) + len(epoch_of(loader, 1))))
    listed = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert sorted(line["key"] for line in listed) == ["r0001", "r0004", "r0007", "r0010"]
    assert {line["reason"] for line in listed} == {"caption empty"}
    assert {line["shard"] for line in listed} == {str(tmp_path / "a.tar")}


def test_other_ranks_list_in_files_of_their_own(load, tmp_path, make_row, png):
    source = captions(tmp_path, make_row, png, [b"", b"a seven"] * 30)
    for rank in range(2):
        loader = load(
            sources=[source],
            rank=rank,
            world_size=2,
            samples_per_epoch=None,
            quarantine=tmp_path / "q.jsonl",
            max_skip_share=1.0,
        )
        list(islice(loader, len(epoch_of(loader)) // 2))
    first, second = (
        {json.loads(line)["key"] for line in (tmp_path / name).read_text().splitlines()}
        for name in ("q.jsonl", "q-rank1.jsonl")
    )
    assert first
    assert second
    assert not first & second


def test_too_large_a_share_of_faults_stops_the_run(load, tmp_path, make_row, png):
    source = captions(tmp_path, make_row, png, [b"", b"a seven", b"an eight"] * 100)
    loader = load(sources=[source], samples_per_epoch=None, max_skip_share=0.25)
    with pytest.raises(DataError, match=r"of the last \d+ samples were skipped.*a\.tar"):
        list(islice(loader, len(epoch_of(loader))))


def test_what_a_filter_leaves_out_does_not_stop_the_run(load, tmp_path, make_row, png):
    rows = [make_row(f"r{n:04d}", txt=b"a seven", png=png(4, 4)) for n in range(300)]
    write_shard(tmp_path / "a.tar", rows)
    task = Caption(min_resolution=8)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=task)
    loader = load(sources=[source], samples_per_epoch=None, quarantine=tmp_path / "q.jsonl")
    list(islice(loader, len(epoch_of(loader))))
    assert loader.skipped == {"picture too small": 300}
    assert not (tmp_path / "q.jsonl").exists()


def test_a_shard_that_was_cut_off_gives_what_it_has_and_says_so(load, tmp_path, make_row, png):
    source = captions(tmp_path, make_row, png, [b"a seven"] * 20)
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2 + 700])
    cut = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    assert 5 < len(cut) < len(source)
    loader = load(sources=[cut], samples_per_epoch=None, quarantine=tmp_path / "q.jsonl")
    assert not (tmp_path / "q.jsonl").exists()
    assert sum(batch.num_samples for batch in islice(loader, len(epoch_of(loader)))) >= 5
    assert loader.skipped["tar broken, samples may be missing"] == 1
    assert "The tar ends inside" in (tmp_path / "q.jsonl").read_text()


def test_a_vanished_shard_can_be_put_back_and_the_run_goes_on(load, tmp_path, make_row, png):
    source = captions(tmp_path, make_row, png, [b"a seven"] * 20)
    common = {"sources": [source], "samples_per_epoch": None, "tokens_per_pack": 60}
    expected = [names(batch) for batch in islice(load(**common), 8)]
    loader = load(**common)
    found = [names(batch) for batch in islice(loader, 3)]
    source._shards.close()
    (tmp_path / "a.tar").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="Put it back, then resume"):
        next(loader)
    state = loader.state_dict()
    (tmp_path / "elsewhere").rename(tmp_path / "a.tar")
    resumed = load(**common)
    resumed.load_state_dict(state)
    assert found + [names(batch) for batch in islice(resumed, 5)] == expected


def test_remote_shards_give_the_batches_of_local_ones(load, digits_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = fsspec.filesystem("memory")
    for path in sorted((digits_folder / "caption").glob("train-*.tar")):
        store.pipe_file(f"/loader/{path.name}", path.read_bytes())
    local = f"{digits_folder}/caption/train-*.tar"
    batches = [
        list(islice(load(sources=[Source(name="c", shards=shards, task=Caption())]), 6))
        for shards in (local, "memory://loader/train-*.tar")
    ]
    assert all(equal(one, other) for one, other in zip(*batches, strict=True))
    store.rm("/loader", recursive=True)


def test_a_position_inside_a_pack_is_refused_when_it_is_loaded(load):
    loader = load()
    state = {**loader.state_dict(), "consumed": 1}
    assert len(epoch_of(loader)[0]) > 1
    with pytest.raises(CheckpointError, match="lies inside a pack"):
        loader.load_state_dict(state)
