"""The terminal shows tokens, bars and tables, and nothing in the data steers it."""

import io
import re

import pytest
from rich.console import Console

from mllm_npu.data.inspect.look import Wish, take_look
from mllm_npu.data.inspect.palette import colours_of
from mllm_npu.data.inspect.plan_stats import count_plan
from mllm_npu.data.inspect.terminal import show_look, show_stats
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.pure_text import PureText


def show(renderable, *, width=100, colours=False):
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
        highlight=False,
    )
    console.print(renderable)
    return file.getvalue()


@pytest.fixture(scope="module")
def look(batches):
    return take_look(batches.order.plan, batches.reader, Wish(num_samples=9, num_packs=2))


@pytest.fixture(scope="module")
def stats(batches):
    return count_plan(batches.order.plan)


def test_every_sample_is_told(look):
    said = show(show_look(look, width=100))
    for view in look.samples:
        assert view.key in said
        for picture in view.pictures:
            assert picture.summary in said


def test_slots_are_folded(look):
    said = show(show_look(look, width=400), width=400)
    reads = sum(piece.kind == "read" for view in look.samples for piece in view.pieces)
    drawn = sum(piece.kind == "drawn" for view in look.samples for piece in view.pieces)
    assert said.count("[img x4]") == reads > 0
    assert said.count("[draw x3]") == drawn > 0
    assert "<img_0000" not in said


def test_learnt_tokens_are_green_and_others_not(look):
    said = show(show_look(look, width=400), width=400, colours=True)
    assert "\x1b[1;32m</s>" in said
    chat = next(view for view in look.samples if view.source == "chat")
    asked = next(piece.text for piece in chat.pieces if piece.text.startswith("which"))
    learnt = "".join(piece.text for piece in chat.pieces if piece.carries_loss)
    assert learnt.startswith("it is ")
    begin = next(piece.text for piece in chat.pieces if piece.carries_loss)
    assert f"\x1b[1;32m{begin}\x1b[0m" in said
    assert asked in said
    assert f"\x1b[1;32m{asked}" not in said


def test_bars_have_the_colours_of_their_data_sets(look):
    said = show(show_look(look, width=100), colours=True)
    for name, colour in colours_of(look.sources).items():
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        in_packs = any(part.source == name for pack in look.packs for part in pack.segments)
        assert (f"38;2;{red};{green};{blue}m" in said) or not in_packs


@pytest.mark.parametrize("width", [60, 100, 173])
def test_bars_are_as_long_as_the_budget(look, width):
    said = show(show_look(look, width=width), width=width)
    bars = [line for line in said.splitlines() if line.startswith("pack ")]
    assert len(bars) == len(look.packs)
    for bar, pack in zip(bars, look.packs, strict=True):
        filled = sum(bar.count(block) for block in "█▓")
        assert filled == round(pack.num_tokens / pack.tokens_per_pack * (width - 12))
        assert filled + bar.count("·") == width - 12
        assert max(map(len, said.splitlines())) <= width


def test_data_do_not_steer_the_terminal(open_batches, make_row, tmp_path):
    evil = "\x1b]0;owned\x07\x1b[2J[red]markup[/red] \u202eback"
    write_shard(tmp_path / "a.tar", [make_row("a", txt=evil.encode())])
    text = Source(name="[red]set[/red]", shards=str(tmp_path / "a.tar"), task=PureText())
    batches = open_batches(sources=[text])
    look = take_look(batches.order.plan, batches.reader, Wish())
    said = show(show_look(look, width=200), width=200)
    said += show(show_stats(count_plan(batches.order.plan)), width=200)
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "\\x1b[2J[red]markup[/red]" in said
    assert "[red]set[/red]" in said


def test_tables_say_the_numbers(stats):
    said = show(show_stats(stats), width=80)
    for source in stats.sources:
        assert source.name in said
        tokens = source.tokens
        assert f"{tokens.mean:.1f}/{tokens.percentile(0.5)}" in said
    assert f"{stats.pack_samples.mean:.2f}" in said
    assert "samples_per_step" in said
    assert f"{stats.padding:.2%}" in said
    assert "48 samples of 48 in epoch 0" in said


def test_tables_fit_a_small_terminal(stats):
    said = show(show_stats(stats), width=80)
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said


def test_what_is_unusable_is_red(stats):
    said = show(show_stats(stats), width=100, colours=True)
    assert len(re.findall(r"\x1b\[1;31m *1\x1b", said)) == 2  # the empty text, the long one


def test_reasons_and_broken_places_are_told(open_batches, make_row, tmp_path):
    rows = [make_row(f"row{n}", txt=b"no </s> please") for n in range(4)]
    write_shard(tmp_path / "a.tar", rows)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:2600])
    batches = open_batches(
        sources=[Source(name="a", shards=str(tmp_path / "a.tar"), task=PureText())]
    )
    look = take_look(batches.order.plan, batches.reader, Wish())
    assert "x A text spells a control token" in show(show_look(look, width=100))
    said = show(show_stats(count_plan(batches.order.plan)), width=300)
    assert "broken: " in said
    assert "a.tar at byte" in said


def test_nothing_to_show_is_nothing_shown(batches):
    look = take_look(batches.order.plan, batches.reader, Wish(num_samples=0, num_packs=0))
    assert show(show_look(look, width=80)).strip() == ""
