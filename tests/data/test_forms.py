"""Forms are added up, chosen by share, and kept beside the shard they belong to."""

import dataclasses
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mllm_npu.data import forms as forms_module
from mllm_npu.data.forms import (
    Form,
    FormTable,
    FormTotals,
    forms_suffix,
    keep_forms,
    load_forms,
    load_totals,
)
from mllm_npu.data.hashing import chances
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.length_rule import LengthRule

RULE = LengthRule(
    opening=1,
    default_system=10_000,
    system_frame=20_000,
    user_frame=300,
    assistant_frame=4_000,
    document_end=50,
    read_tile=1_000_000,
    drawn_picture=100_000_000,
    learnt_answer=7,
)
CUT = AnyResolution(grids=["1x1", "2x1", "3x1"], tile_size=16, repeat_single_tile=False)
SHARD_STATE = {"size": "10", "modified": "3"}


@pytest.fixture
def shard(tmp_path):
    (tmp_path / "data").mkdir()
    return str(tmp_path / "data" / "a.tar")


def form(share=1.0, text=5, learnt=2, **more):
    return Form(share=share, num_text_tokens=text, num_learnt_tokens=learnt, **more)


@pytest.fixture
def table():
    """Four samples: two forms, none, three of which one never comes, one."""
    return FormTable.of(
        [
            [form(0.75, 5, 2), form(0.25, 6, 0, num_drawn=1)],
            [],
            [
                form(2, 7, 1, reads=((16, 16), (48, 16)), num_users=1, num_assistants=1),
                form(0, 8, 8),
                form(6, 9, 3, num_systems=1, num_users=2, num_assistants=2),
            ],
            [form(1, 4, 4, reads=((32, 16),))],
        ]
    )


def same(first, second):
    return all(
        np.array_equal(getattr(first, one.name), getattr(second, one.name))
        and getattr(first, one.name).dtype == getattr(second, one.name).dtype
        for one in fields(FormTable)
    )


def test_a_table_holds_the_forms_of_samples_in_order(table):
    assert len(table) == 4
    assert table.first.tolist() == [0, 2, 2, 5, 6]
    assert table.text.tolist() == [5, 6, 7, 8, 9, 4]
    assert table.learnt.tolist() == [2, 0, 1, 8, 3, 4]
    assert table.drawn.tolist() == [0, 1, 0, 0, 0, 0]
    assert table.turns.tolist() == [[0, 0, 0]] * 2 + [[0, 1, 1], [0, 0, 0], [1, 2, 2], [0, 0, 0]]
    assert table.first_read.tolist() == [0, 0, 0, 2, 2, 2, 3]
    assert table.reads.tolist() == [[16, 16], [48, 16], [32, 16]]
    assert {table.first.dtype, table.text.dtype, table.reads.dtype} == {np.dtype(np.int64)}


def test_tokens_add_up_from_texts_turns_and_pictures(table):
    assert table.tokens(RULE, CUT).tolist() == [
        1 + 5 + 50,
        1 + 6 + 50 + 100_000_000,
        1 + 7 + 10_000 + 300 + 4_000 + (1 + 4) * 1_000_000,
        1 + 8 + 50,
        1 + 9 + 20_000 + 2 * 300 + 2 * 4_000,
        1 + 4 + 50 + 3 * 1_000_000,
    ]


def test_tiles_are_those_of_read_and_drawn_pictures(table):
    assert table.tiles(CUT).tolist() == [0, 1, 5, 0, 0, 3]
    assert table.tiles(AnyResolution(grids=["1x1"], tile_size=16)).tolist() == [0, 1, 4, 0, 0, 2]


def test_an_empty_table_has_no_tokens_and_no_tiles():
    for table in (FormTable.of([]), FormTable.of([[], []])):
        assert table.tokens(RULE, CUT).tolist() == table.tiles(CUT).tolist() == []
        assert table.totals() == FormTotals(num_samples=0, learnt=0, answers=0, documents=0)
    assert len(FormTable.of([[], []])) == 2


def test_forms_are_chosen_by_their_share(table):
    number = 20_000
    for sample, shares in ((0, [0.75, 0.25]), (2, [0.25, 0, 0.75]), (3, [1])):
        samples = np.full(number, sample)
        chosen = table.choose(samples, chances(np.arange(number), "test", sample))
        found = np.bincount(chosen, minlength=len(shares)) / number
        assert found == pytest.approx(shares, abs=0.015)
        assert (found[np.array(shares) == 0] == 0).all()


def test_a_choice_follows_from_its_chance_alone(table):
    samples = np.array([3, 0, 2, 1, 0, 2, 0])
    drawn = np.array([0.5, 0.749, 0.26, 0.9, 0.751, 0.24, 0.0])
    expected = [0, 0, 2, 0, 1, 0, 0]
    assert table.choose(samples, drawn).tolist() == expected
    assert table.choose(samples[::-1], drawn[::-1]).tolist() == expected[::-1]
    assert table.choose(samples, drawn).dtype == np.int64


def test_the_outermost_chances_give_the_first_and_the_last_form(table):
    samples = np.arange(4)
    below_one = np.full(4, np.nextafter(1.0, 0.0))
    assert table.choose(samples, np.zeros(4)).tolist() == [0, 0, 0, 0]
    assert table.choose(samples, below_one).tolist() == [1, 0, 2, 0]


def test_a_form_without_share_is_never_chosen():
    table = FormTable.of([[form()], [form(0), form(1), form(0)], [form(0), form(2)]])
    samples = np.array([0, 1, 2])
    for chance in (0.0, 1e-12, 0.4, 0.999):
        assert table.choose(samples, np.full(3, chance)).tolist() == [0, 1, 1]


def test_samples_without_a_form_choose_none_wherever_they_stand():
    table = FormTable.of([[], [form(), form()], [], [], [form()], []])
    for chance in (0.0, 0.3, 0.99):
        chosen = table.choose(np.arange(6), np.full(6, chance))
        assert chosen.tolist() == [0, int(chance > 0.5), 0, 0, 0, 0]
    nothing = FormTable.of([[], []])
    assert nothing.choose(np.array([1, 0]), np.array([0.2, 0.8])).tolist() == [0, 0]


def test_a_choice_stays_within_its_sample_in_a_large_table():
    number = 30_000
    table = FormTable.of([[form(1 / 3), form(1 / 3), form(1 / 3)]] * number)
    samples = np.arange(number)
    for chance, expected in ((0.0, 0), (0.2, 0), (0.5, 1), (0.9, 2), (1 - 2**-53, 2)):
        chosen = table.choose(samples, np.full(number, chance))
        assert set(chosen.tolist()) <= {expected, max(expected - 1, 0)}
        assert (chosen == expected).mean() > 0.9


def test_values_of_the_chosen_forms_and_of_samples_without_any(table):
    samples, chosen = np.array([0, 1, 2, 3, 0]), np.array([1, 0, 2, 0, 0])
    values = table.per_sample(table.text, samples, chosen, empty=77)
    assert values.tolist() == [6, 77, 9, 4, 5]
    assert values.dtype == np.int64


def test_a_last_sample_without_a_form_and_a_table_without_any_are_empty():
    table = FormTable.of([[form(text=3)], []])
    values = table.per_sample(table.text, np.array([0, 1]), np.array([0, 0]), empty=1)
    assert values.tolist() == [3, 1]
    nothing = FormTable.of([[], []])
    values = nothing.per_sample(nothing.text, np.array([0, 1]), np.array([0, 0]), empty=9)
    assert (values.tolist(), values.dtype) == ([9, 9], np.int64)


def test_totals_count_each_form_by_its_share_of_its_sample(table):
    totals = table.totals()
    assert totals.num_samples == 3
    assert totals.learnt == pytest.approx(0.75 * 2 + 0.25 * 1 + 0.25 * 1 + 0.75 * 3 + 4)
    assert totals.answers == pytest.approx(0.25 * 1 + 0.75 * 2)
    assert totals.documents == pytest.approx(2)
    assert totals.num_targets(RULE) == pytest.approx(8.25 + 1.75 * 7 + 2)


def test_a_sample_whose_forms_have_no_share_counts_nothing():
    totals = FormTable.of([[form(0), form(0)]]).totals()
    assert (totals.learnt, totals.documents) == (0, 0)


def test_kept_forms_come_back_as_they_were(table, shard):
    suffix = forms_suffix("caption/tokenizer")
    assert load_forms(shard, suffix, SHARD_STATE) is None
    assert load_totals(shard, suffix, SHARD_STATE) is None
    keep_forms(shard, suffix, SHARD_STATE, table)
    assert Path(shard + suffix).is_file()
    assert same(load_forms(shard, suffix, SHARD_STATE), table)
    assert load_totals(shard, suffix, SHARD_STATE) == table.totals()


@pytest.mark.parametrize("samples", [[], [[]], [[form()]]])
def test_small_tables_are_kept_too(shard, samples):
    table = FormTable.of(samples)
    keep_forms(shard, ".forms", SHARD_STATE, table)
    assert same(load_forms(shard, ".forms", SHARD_STATE), table)
    assert load_totals(shard, ".forms", SHARD_STATE) == table.totals()


def test_forms_of_another_state_of_the_shard_are_not_taken(table, shard):
    keep_forms(shard, ".forms", SHARD_STATE, table)
    for state in ({**SHARD_STATE, "size": "11"}, {"size": "10"}, {**SHARD_STATE, "more": "x"}):
        assert load_forms(shard, ".forms", state) is None
        assert load_totals(shard, ".forms", state) is None
    other = FormTable.of([[form()]])
    keep_forms(shard, ".forms", {"size": "11"}, other)
    assert same(load_forms(shard, ".forms", {"size": "11"}), other)
    assert load_totals(shard, ".forms", {"size": "11"}) == other.totals()
    assert load_forms(shard, ".forms", SHARD_STATE) is None


def test_forms_of_another_release_are_not_taken(table, shard, monkeypatch):
    keep_forms(shard, ".forms", SHARD_STATE, table)
    monkeypatch.setattr(forms_module, "FORMS_VERSION", "0")
    assert load_forms(shard, ".forms", SHARD_STATE) is None
    assert load_totals(shard, ".forms", SHARD_STATE) is None


def test_another_meaning_is_another_file(table, shard):
    suffixes = {forms_suffix(meaning) for meaning in ("caption/a", "caption/b", "ocr/a", "")}
    assert len(suffixes) == 4
    assert forms_suffix("caption/a") == forms_suffix("caption/a")
    assert all(suffix.endswith(".safetensors") for suffix in suffixes)
    keep_forms(shard, forms_suffix("caption/a"), SHARD_STATE, table)
    assert load_forms(shard, forms_suffix("caption/b"), SHARD_STATE) is None


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x08" + bytes(7) + b"{}      "])
def test_a_broken_file_is_as_none(table, shard, content):
    Path(shard + ".forms").write_bytes(content)
    assert load_forms(shard, ".forms", SHARD_STATE) is None
    assert load_totals(shard, ".forms", SHARD_STATE) is None
    keep_forms(shard, ".forms", SHARD_STATE, table)
    assert same(load_forms(shard, ".forms", SHARD_STATE), table)


def test_a_cut_file_is_as_none(table, shard):
    keep_forms(shard, ".forms", SHARD_STATE, table)
    path = Path(shard + ".forms")
    path.write_bytes(path.read_bytes()[:-8])
    assert load_forms(shard, ".forms", SHARD_STATE) is None


def test_where_nothing_can_be_written_the_run_goes_on(table, shard, shard_cache):
    Path(shard + ".forms").mkdir()
    shard_cache.write_text("a file where a folder should be")
    keep_forms(shard, ".forms", SHARD_STATE, table)
    assert load_forms(shard, ".forms", SHARD_STATE) is None


def test_the_cache_takes_what_cannot_lie_beside_the_shard(table, shard, shard_cache):
    Path(shard + ".forms").mkdir()
    keep_forms(shard, ".forms", SHARD_STATE, table)
    assert [path.name for path in shard_cache.rglob("*") if path.is_file()] == ["a.tar.forms"]
    assert same(load_forms(shard, ".forms", SHARD_STATE), table)
    assert load_totals(shard, ".forms", SHARD_STATE) == table.totals()


def test_a_picture_is_measured_by_its_company():
    """One tile and a newline beside others, all its grid by itself."""
    cut = JoinedTiles(grids=["2x1"], tile_size=16, one_tile_in_company=True)
    rule = dataclasses.replace(RULE, read_tile=4, read_picture=100)
    table = FormTable.of(
        [
            [form(reads=((32, 16),), num_users=0)],
            [form(reads=((32, 16), (32, 16))), form()],
        ]
    )
    alone = cut.num_tokens(32, 16, per_tile=4) + 100
    assert alone == 4 + 2 * 5 + 100
    texts = rule.opening + 5 + rule.document_end
    assert (table.tokens(rule, cut) - texts).tolist() == [alone, 2 * (5 + 100), 0]
    assert table.tiles(cut).tolist() == [3, 2, 0]
