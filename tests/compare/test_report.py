"""A comparison is told as a table and as one JSON value."""

import io
import json
import math

import pytest
from rich.console import Console

from mllm_npu.compare.parity import Parity
from mllm_npu.compare.recording import Step
from mllm_npu.compare.report import describe_place, show, to_json, worst_rows
from mllm_npu.compare.verdict import judge


@pytest.fixture
def parity(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.up"), lambda x: x * 1.01)
    comparison, verdict = tools.compare(tools.Toy(), b, isolate=True)
    return Parity(comparison=comparison, verdict=verdict)


def shown(parity, width=180):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(show(parity, width=width))
    return console.export_text()


def test_the_worst_come_first_and_once_per_module_and_kind(parity):
    rows = worst_rows(parity, 1000)
    shares = [row.share for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert len({(row.event.module, row.event.kind) for row in rows}) == len(rows)
    assert len(worst_rows(parity)) == 12


def test_places_are_told_in_words(parity):
    told = {describe_place(row) for row in worst_rows(parity, 1000)}
    assert {"output", "input 0", "alone: output", "gradient of output"} <= told
    assert any(words.startswith("gradient of parameter ") for words in told)


def test_the_terminal_shows_sides_and_worst_modules(parity):
    text = shown(parity)
    assert "A toy" in text
    assert "cosine" in text
    assert "nearest to their bounds or beyond" in text
    assert "blocks.1.up" in text


def test_where_all_is_the_same_nothing_is_near_a_bound(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy())
    text = shown(Parity(comparison=comparison, verdict=judge(comparison)))
    assert "nearest" not in text


def test_a_narrow_terminal_shows_fewer_figures(parity):
    text = shown(parity, 80)
    assert "relative" in text
    assert "cosine" not in text
    assert "blocks.1.up " in text


def test_the_terminal_shows_updates(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy())
    for facts in (comparison.recording.facts, comparison.facts):
        facts.steps = [Step(step=1, loss=2.25, grad_norm=1.5)]
    text = shown(Parity(comparison=comparison, verdict=judge(comparison)))
    assert "updates" in text
    assert "2.25" in text


def test_json_holds_every_number(parity):
    told = json.loads(json.dumps(to_json(parity), allow_nan=False))
    assert told["agrees"] is False
    assert told["first"]["module"] == "blocks.1.up"
    assert [one["module"] for one in told["guilty"]] == ["blocks.1.up"]
    comparison = parity.comparison
    assert len(told["rows"]) == len(comparison.rows) + len(comparison.own_rows)
    assert told["verdict"][0].startswith("first divergence")
    assert told["sides"][0]["device"] == ""


def test_json_has_no_word_for_what_is_no_number(tools):
    b = tools.Toy()
    tools.change_forward(b.part("head"), lambda x: x * math.nan)
    comparison, verdict = tools.compare(tools.Toy(), b)
    told = to_json(Parity(comparison=comparison, verdict=verdict))
    json.dumps(told, allow_nan=False)
    assert told["first"]["relative"] is None
    assert "not finite" in told["first"]["problem"]
