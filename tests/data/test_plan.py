import time
from collections import Counter
from itertools import chain
from random import Random

import numpy as np
import pytest

from mllm_npu.data.curriculum import Curriculum
from mllm_npu.data.forms import Form, FormTable, FormTotals
from mllm_npu.data.plan import Plan
from mllm_npu.data.source import SampleSource, Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import ConfigError
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.single_tile import SingleTile

SIZES = (300, 70, 1100)
RECORDED = [
    [(1, 0, 0, 0), (1, 2, 0, 0)],
    [(0, 0, 0, 0), (0, 4, 0, 0)],
    [(1, 1, 0, 0), (0, 1, 0, 0)],
    [(0, 2, 0, 0), (0, 3, 0, 0)],
]


@pytest.fixture
def sources(counted_source):
    rng = np.random.default_rng(1)

    def build(weights=SIZES, **changes):
        return [
            counted_source(
                name=name,
                weight=weight,
                shards=[rng.integers(1, 60, size // 10).tolist() for _ in range(10)],
                **changes,
            )
            for name, weight, size in zip("abc", weights, SIZES, strict=True)
        ]

    return build


@pytest.fixture
def plan(sources, processor):
    given = sources()

    def build(**changes):
        settings = {
            "sources": given,
            "processor": processor,
            "tokens_per_pack": 100,
            "seed": 3,
            "plan_window": 256,
            "shuffle_window": 64,
        }
        return Plan(**{**settings, **changes})

    return build


def packs_of(plan, epoch=0):
    return [pack for n in range(plan.num_windows(epoch)) for pack in plan.window(epoch, n).packs]


def picks_of(plan, epoch=0):
    return list(chain.from_iterable(packs_of(plan, epoch)))


def test_every_sample_once_per_epoch_with_weights_equal_to_sizes(plan):
    for epoch in (0, 1, 5):
        picks = picks_of(plan(), epoch)
        seen = sorted((pick.source, pick.sample) for pick in picks)
        assert seen == [(source, n) for source, size in enumerate(SIZES) for n in range(size)]
        assert {pick.visit for pick in picks} == {epoch}


@pytest.mark.parametrize("tokens_per_pack", [70, 100, 1000])
def test_packs_keep_the_budget_and_say_what_they_cost(plan, processor, tokens_per_pack):
    made = plan(tokens_per_pack=tokens_per_pack)
    extra = processor.length_rule.opening + processor.length_rule.document_end
    packs = packs_of(made)
    for pack in packs:
        lengths = [
            extra + list(chain.from_iterable(made.sources[p.source].tokens))[p.sample] for p in pack
        ]
        assert pack.num_tokens == sum(lengths) <= tokens_per_pack
        assert pack.num_tiles == 0
    assert sum(pack.num_tokens for pack in packs) / (len(packs) * tokens_per_pack) > 0.9


def test_a_window_needs_none_before_it(plan):
    whole = [plan().window(1, n) for n in range(plan().num_windows(1))]
    assert plan().window(1, 3) == whole[3]
    before = 0
    for window in whole:
        assert window.before == before
        before += sum(map(len, window.packs))
    assert before == plan().samples_per_epoch == sum(SIZES)


def test_equal_arguments_give_equal_plans_and_seed_and_epoch_change_them(plan):
    assert packs_of(plan()) == packs_of(plan())
    assert picks_of(plan()) != picks_of(plan(seed=4))
    assert picks_of(plan()) != picks_of(plan(), 1)


def test_the_plan_is_the_same_on_every_machine(counted_source, processor):
    # A recorded plan: a change here breaks the exact resume of saved runs (iteration order).
    made = Plan(
        sources=[
            counted_source("a", 5, [[4, 2, 7], [1, 3]]),
            counted_source("b", 3, [[5, 5, 2]]),
        ],
        processor=processor,
        tokens_per_pack=14,
        seed=0,
    )
    assert [[tuple(pick) for pick in pack] for pack in packs_of(made)] == RECORDED


def test_weights_are_shares_of_samples_over_the_epochs(plan, sources):
    made = plan(sources=sources((1, 1, 2)), samples_per_epoch=400)
    counts = Counter()
    for epoch in range(4):
        picks = picks_of(made, epoch)
        assert len(picks) == 400
        counts.update(pick.source for pick in picks)
    assert counts == {0: 400, 1: 400, 2: 800}


def test_weights_may_be_shares_of_what_is_learnt(counted_source, processor):
    sources = [
        counted_source("long", 1, [[9] * 50], learnt=9),
        counted_source("short", 1, [[9] * 50], learnt=1),
    ]
    made = Plan(
        sources=sources,
        processor=processor,
        tokens_per_pack=100,
        seed=0,
        weigh_by="target_tokens",
        samples_per_epoch=1200,
    )
    counts = Counter(pick.source for pick in picks_of(made))
    # Each sample learns its text and its end: 10 and 2 tokens.
    assert counts == {0: 200, 1: 1000}


def test_a_curriculum_changes_the_weights_by_step(plan):
    stages = [
        {"from_step": 0, "weights": {"a": 1}},
        {"from_step": 10, "weights": {"b": 1, "c": 3}},
    ]
    made = plan(curriculum=Curriculum(samples_per_step=50, stages=stages), samples_per_epoch=1000)
    picks = picks_of(made)
    assert {pick.source for pick in picks[:500]} == {0}
    assert Counter(pick.source for pick in picks[500:]) == {1: 125, 2: 375}
    assert Counter(pick.source for pick in picks_of(made, 1)) == {1: 250, 2: 750}


def test_a_small_source_is_repeated_only_after_all_of_it_was_seen(plan, sources):
    made = plan(sources=sources((0, 1, 0)), samples_per_epoch=100)
    visits = Counter()
    for epoch in range(3):
        for pick in picks_of(made, epoch):
            visits[pick.sample, pick.visit] += 1
    assert set(visits.values()) == {1}
    complete = Counter(visit for _, visit in visits)
    assert [complete[visit] for visit in range(4)] == [70, 70, 70, 70]


def test_a_large_source_is_seen_whole_over_the_epochs(plan, sources):
    made = plan(sources=sources((0, 0, 1)), samples_per_epoch=100)
    picks = [pick for epoch in range(11) for pick in picks_of(made, epoch)]
    assert len({pick.sample for pick in picks}) == 1100


def test_every_window_mixes_all_sources(plan):
    for pack in range(0, len(packs_of(plan())), 60):
        picks = list(chain.from_iterable(packs_of(plan())[pack : pack + 60]))
        share = sum(pick.source == 2 for pick in picks) / len(picks)
        assert 0.6 < share < 0.9


def test_only_shards_of_the_window_are_measured(counted_source, processor):
    source = counted_source(shards=[[5] * 100 for _ in range(50)])
    made = Plan(
        sources=[source],
        processor=processor,
        tokens_per_pack=100,
        seed=0,
        plan_window=200,
        shuffle_window=200,
    )
    assert source.measured == []
    made.window(0, 7)
    assert 2 <= len(source.measured) <= 4


def test_the_plan_chooses_forms_by_their_share(digits_processor, digits_folder):
    source = Source(
        name="caption",
        shards=f"{digits_folder}/caption/train-*.tar",
        task=Caption(draw_share=0.25),
        weight=1.0,
    )
    made = Plan(
        sources=[source],
        processor=digits_processor,
        tokens_per_pack=150,
        seed=0,
        samples_per_epoch=40 * len(source),
    )
    picks = picks_of(made)
    drawn = sum(pick.form for pick in picks)
    assert drawn / len(picks) == pytest.approx(0.25, abs=0.04)
    # The same sample is read at one visit and drawn at another.
    assert {pick.form for pick in picks if pick.sample == 0} == {0, 1}
    for pack in packs_of(made)[:10]:
        samples = [
            digits_processor.encode(source.conversation(p.sample, Random(0), p.form)) for p in pack
        ]
        assert sum(sample.num_tokens for sample in samples) == pack.num_tokens
        assert sum(len(sample.tiles) for sample in samples) == pack.num_tiles


def test_a_sample_longer_than_a_pack_stands_alone(counted_source, processor):
    source = counted_source(shards=[[10] * 30 + [101]])
    made = Plan(sources=[source], processor=processor, tokens_per_pack=100, seed=0)
    alone = [pack for pack in packs_of(made) if any(pick.sample == 30 for pick in pack)]
    assert [len(pack) for pack in alone] == [1]


def test_tiles_have_a_budget_of_their_own(plan, sources):
    given = sources(tiles=1)
    free, tight = plan(sources=given), plan(sources=given, tiles_per_pack=2)
    assert max(pack.num_tiles for pack in packs_of(free)) > 2
    assert max(pack.num_tiles for pack in packs_of(tight)) == 2
    assert len(picks_of(tight)) == len(picks_of(free))


def test_the_fingerprint_tells_plans_apart(plan, sources, processor, tokenizer, make_processor):
    stages = [{"from_step": 0, "weights": {"a": 1}}]
    frames = {"user_prefix": "user: ", "assistant_prefix": "assistant: "}
    broken = ChatTemplate(**frames, picture_suffix="\n")
    changes = [
        {"seed": 1},
        {"tokens_per_pack": 101},
        {"tiles_per_pack": 9},
        {"samples_per_epoch": 77},
        {"plan_window": 100},
        {"shuffle_window": 100},
        {"weigh_by": "target_tokens"},
        {"curriculum": Curriculum(samples_per_step=2, stages=stages)},
        {"sources": sources((1, 2, 3))},
        {"processor": make_processor(tokenizer, num_read_tokens=3)},
        {"processor": make_processor(tokenizer, chat_template=broken)},
        {"processor": make_processor(tokenizer, any_resolution=SingleTile(tile_size=16))},
    ]
    prints = [plan(**change).fingerprint() for change in ({}, *changes)]
    assert len(set(prints)) == len(prints)
    assert plan().fingerprint() == prints[0]


def test_a_plan_of_many_shards_opens_few_and_is_there_at_once(processor):
    """A tenth of the size that benchmarks/data_pipeline.py measures."""
    source = ManyShards(num_shards=1000, shard_size=10_000)
    begin = time.process_time()
    made = Plan(sources=[source], processor=processor, tokens_per_pack=4096, seed=0)
    assert sum(map(len, made.window(0, 0).packs)) > 8000
    assert made.window(0, made.num_windows(0) - 1).packs
    assert time.process_time() - begin < 5
    assert source.num_measured < 30


class ManyShards(SampleSource):
    """Shards whose forms are made up when they are asked for."""

    def __init__(self, num_shards, shard_size):
        self.name, self.weight, self.num_measured = "many", 1.0, 0
        self._sizes = np.full(num_shards, shard_size)

    def __len__(self):
        return int(self._sizes.sum())

    @property
    def shard_sizes(self):
        return self._sizes

    def forms(self, shard, processor):
        self.num_measured += 1
        one = [Form(num_text_tokens=60 + shard % 7, num_learnt_tokens=1)]
        return FormTable.of([one] * int(self._sizes[shard]))

    def totals(self, shard, processor):
        raise NotImplementedError

    def row(self, index):
        raise NotImplementedError

    def conversation(self, index, rng, form=None):
        raise NotImplementedError

    def where(self, index):
        return ""

    def fingerprint(self):
        return ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_per_pack": 0}, "tokens_per_pack=0"),
        ({"tiles_per_pack": 0}, "tiles_per_pack=0"),
        ({"samples_per_epoch": 0}, "samples_per_epoch=0"),
        ({"plan_window": 0}, "plan_window=0"),
        ({"shuffle_window": 0}, "shuffle_window=0"),
        ({"weigh_by": "bytes"}, "weigh_by=bytes"),
    ],
)
def test_what_does_not_fit_is_refused(plan, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


def test_an_empty_source_needs_weight_zero(plan, counted_source, sources):
    empty = counted_source("none", 1.0, [[]])
    with pytest.raises(ConfigError, match=r"\['none'\] have a weight and no samples"):
        plan(sources=[*sources(), empty])
    empty.weight = 0.0
    assert picks_of(plan(sources=[*sources(), empty]))


def test_nothing_learnt_cannot_be_weighed_by_it(counted_source, plan):
    class Mute(counted_source):
        def totals(self, shard, processor):
            return FormTotals(num_samples=3, learnt=0.0, answers=0.0, documents=0.0)

    with pytest.raises(ConfigError, match="nothing is learnt from 'mute'"):
        plan(sources=[Mute("mute")], weigh_by="target_tokens")
