"""The page holds verdict, charts and table, and needs nothing else."""

import re

import pytest

from mllm_npu.compare.page import render_page, write_page
from mllm_npu.compare.parity import Parity
from mllm_npu.compare.recording import Step
from mllm_npu.errors import DataError


@pytest.fixture
def parity(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.up"), lambda x: x * 1.01)
    comparison, verdict = tools.compare(tools.Toy(), b, isolate=True)
    comparison.recording.facts.title = "a <b>"
    return Parity(comparison=comparison, verdict=verdict)


def test_it_tells_the_verdict(parity):
    page = render_page(parity)
    assert "first divergence: blocks.1.up, forward" in page
    assert 'class="verdict bad"' in page


def test_it_has_a_chart_for_each_direction(parity):
    page = render_page(parity)
    assert page.count("<svg") == 5
    for title in ("Forward", "Backward", "Parameters", "Each module alone"):
        assert f"<h2>{title}</h2>" in page
    assert 'class="first"' in page
    assert 'class="dot over"' in page


def test_it_needs_nothing_from_elsewhere(parity):
    page = render_page(parity)
    assert not re.findall(r"""(?:src|href)=|url\(|@import|https?://""", page)


def test_names_are_escaped(parity):
    page = render_page(parity)
    assert "Parity of a &lt;b&gt;" in page
    assert "<b>" not in page


def test_updates_are_a_table(parity, tools):
    for facts in (parity.comparison.recording.facts, parity.comparison.facts):
        facts.steps = [Step(step=1, loss=2.0, grad_norm=1.5)]
    assert "Losses and gradient norms" in render_page(parity)
    comparison, verdict = tools.compare(tools.Toy(), tools.Toy())
    page = render_page(Parity(comparison=comparison, verdict=verdict))
    assert "Losses and gradient norms" not in page
    assert 'class="verdict good"' in page
    assert "Each module alone" not in page


def test_it_appears_whole_or_not_at_all(parity, tmp_path):
    path = tmp_path / "new" / "page.html"
    write_page(path, parity)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", parity)
