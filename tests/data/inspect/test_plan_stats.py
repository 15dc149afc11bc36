"""The numbers of a plan are those that encoding every sample of it gives."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.data.inspect.plan_stats import PlanStats, count_plan
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import ConfigError, SkipSample


def read_all(batches, num_windows=None):
    """For every pack of an epoch its samples, read one by one; None for one left out."""
    plan = batches.order.plan
    packs = []
    for number in range(plan.num_windows(0) if num_windows is None else num_windows):
        for pack in plan.window(0, number).packs:
            packs.append([(pick, read(batches, pick)) for pick in pack])
    return packs


def read(batches, pick):
    try:
        return batches.reader.read(pick)
    except SkipSample:
        return None


@pytest.fixture(scope="module")
def packs(batches):
    return read_all(batches)


@pytest.fixture(scope="module")
def stats(batches):
    return count_plan(batches.order.plan, windows=None)


def of_source(packs, number):
    return [sample for pack in packs for pick, sample in pack if pick.source == number]


def test_packs_are_those_of_the_plan(stats, packs):
    assert stats.num_packs == len(packs)
    assert stats.pack_samples.mean == pytest.approx(np.mean([len(pack) for pack in packs]))
    assert stats.num_samples == sum(map(len, packs)) == stats.samples_in_epoch == 48
    assert stats.num_windows == stats.windows_in_epoch == 3


def test_tokens_and_tiles_of_packs_are_those_that_are_read(stats, packs):
    tokens = [sum(sample.num_tokens for _, sample in pack if sample) for pack in packs]
    tiles = [sum(len(sample.tiles) for _, sample in pack if sample) for pack in packs]
    assert stats.pack_tokens.counts == Counter(tokens)
    assert stats.pack_tiles.counts == Counter(tiles)
    assert stats.padding == pytest.approx(1 - sum(tokens) / (len(packs) * 256))
    assert stats.tile_spread == pytest.approx(np.std(tiles) / np.mean(tiles))


def test_lengths_of_data_sets_are_those_that_are_read(stats, packs):
    for number, source in enumerate(stats.sources[:2]):
        samples = of_source(packs, number)
        assert all(sample is not None for sample in samples)
        assert source.tokens.counts == Counter(sample.num_tokens for sample in samples)
        assert source.tiles.counts == Counter(len(sample.tiles) for sample in samples)
        targets = [int((sample.labels[1:] != IGNORED_LABEL).sum()) for sample in samples]
        assert source.targets.counts == Counter(targets)


def test_what_is_left_out_is_known_beforehand(stats, packs):
    text = stats.sources[2]
    assert of_source(packs, 2).count(None) == 2
    assert (text.num_unusable, text.num_over_limit) == (1, 1)
    assert [source.num_unusable + source.num_over_limit for source in stats.sources[:2]] == [0, 0]


def test_shares_are_those_of_what_is_read(stats, packs):
    read = [[one for one in of_source(packs, number) if one] for number in range(3)]
    tokens = [sum(sample.num_tokens for sample in samples) for samples in read]
    targets = [
        sum(int((sample.labels[1:] != IGNORED_LABEL).sum()) for sample in samples)
        for samples in read
    ]
    for number, source in enumerate(stats.sources):
        assert stats.shares(source) == pytest.approx(
            {
                "samples": len(of_source(packs, number)) / 48,
                "tokens": tokens[number] / sum(tokens),
                "target_tokens": targets[number] / sum(targets),
            }
        )


def test_picture_sizes_are_those_of_the_rows(stats, batches, picks):
    for number, source in enumerate(batches.sources):
        sizes = Counter()
        for pick in picks:
            if pick.source == number:
                row = source.row(pick.sample)
                sizes.update(row.picture_size(name) for name in row.picture_names())
        assert stats.sources[number].picture_sizes == sizes
    assert len(stats.sources[0].picture_sizes) == 5


def test_sizes_of_data_sets_are_told(stats):
    assert [(source.num_shards, source.num_samples) for source in stats.sources] == [
        (2, 24),
        (1, 10),
        (1, 14),
    ]


def test_few_windows_are_the_first_ones(batches):
    stats = count_plan(batches.order.plan, windows=1)
    packs = read_all(batches, 1)
    assert (stats.num_windows, stats.windows_in_epoch) == (1, 3)
    assert stats.num_samples == sum(map(len, packs)) < stats.samples_in_epoch
    tokens = [sum(sample.num_tokens for _, sample in pack if sample) for pack in packs]
    assert stats.pack_tokens.counts == Counter(tokens)


def test_more_windows_than_there_are_is_all_of_them(batches, stats):
    more = count_plan(batches.order.plan, windows=99)
    assert more.to_json() == stats.to_json()


def test_other_epochs_are_other_plans(batches, stats):
    other = count_plan(batches.order.plan, epoch=1, windows=None)
    assert other.epoch == 1
    assert other.num_samples == stats.num_samples
    assert other.sources[0].tokens.counts != stats.sources[0].tokens.counts


def test_samples_over_a_budget_of_tiles_are_left_out(open_batches):
    batches = open_batches(tiles_per_pack=4)
    stats = count_plan(batches.order.plan, windows=None)
    packs = read_all(batches)
    over = [one for pack in packs for _, one in pack if one is not None and len(one.tiles) > 4]
    assert len(over) > 0
    assert sum(source.num_over_limit for source in stats.sources) == len(over) + 1
    assert stats.pack_tiles.max <= 4
    assert stats.to_json()["tiles_per_pack"]["limit"] == 4


def test_json_is_plain_and_whole(stats):
    told = json.loads(json.dumps(stats.to_json()))
    assert list(told["sources"]) == ["caption", "chat", "text"]
    assert told["samples_per_pack"] == round(48 / told["packs"], 3)
    assert told["tokens_per_pack"]["limit"] == 256
    assert told["tiles_per_pack"]["limit"] is None
    assert told["sources"]["text"]["unusable"] == 1
    for name in ("samples", "tokens", "target_tokens"):
        shares = [source["share"][name] for source in told["sources"].values()]
        assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_broken_places_are_told(tmp_path, make_row, png, open_batches):
    rows = [make_row(f"row{n}", png=png(), txt=b"seven") for n in range(20)]
    write_shard(tmp_path / "whole.tar", rows)
    data = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "whole.tar").write_bytes(data[: len(data) // 2 // 512 * 512])
    source = Source(name="cut", shards=str(tmp_path / "*.tar"), task=Caption())
    stats = count_plan(open_batches(sources=[source]).order.plan)
    (place,) = stats.sources[0].breaks
    assert place.shard.endswith("whole.tar")
    assert place.reason
    told = stats.to_json()["sources"]["cut"]["breaks"]
    assert told == [{"shard": place.shard, "offset": place.offset, "reason": place.reason}]


def test_no_picture_is_decoded(open_batches, monkeypatch):
    batches = open_batches()

    def refuse(*_):
        raise AssertionError("a sample was read")

    for source in batches.sources:
        monkeypatch.setattr(source, "row", refuse)
        monkeypatch.setattr(source, "conversation", refuse)
    assert count_plan(batches.order.plan).num_samples == 48


def test_a_data_set_of_texts_alone_has_no_tiles(open_batches, tmp_path, make_row):
    write_shard(tmp_path / "a.tar", [make_row(f"row{n}", txt=b"seven") for n in range(9)])
    text = Source(name="text", shards=str(tmp_path / "a.tar"), task=PureText())
    stats = count_plan(open_batches(sources=[text]).order.plan)
    assert (stats.pack_tiles.mean, stats.tile_spread) == (0, 0)
    assert stats.sources[0].picture_sizes == {}


def test_progress_reaches_the_end(batches):
    told = []
    count_plan(batches.order.plan, windows=2, progress=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]


def test_no_window_is_refused(batches):
    with pytest.raises(ConfigError, match="Count 1 or more"):
        count_plan(batches.order.plan, windows=0)


def test_stats_of_nothing_divide_by_nothing():
    empty = PlanStats(
        epoch=0,
        num_windows=0,
        windows_in_epoch=0,
        samples_in_epoch=0,
        max_tokens_per_pack=10,
        max_tiles_per_pack=None,
        sources=(),
    )
    told = empty.to_json()
    assert (told["samples_per_pack"], told["padding"], empty.tile_spread) == (0, 1, 0)
    assert list(itertools.chain(told["sources"])) == []
