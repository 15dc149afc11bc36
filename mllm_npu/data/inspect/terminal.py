"""Terminal: samples, packs and numbers of a plan for the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mllm_npu.data.inspect.look import Look
from mllm_npu.data.inspect.pack_view import PackView
from mllm_npu.data.inspect.palette import colours_of
from mllm_npu.data.inspect.plan_stats import PlanStats
from mllm_npu.data.inspect.sample_view import SampleView
from mllm_npu.data.inspect.token_piece import TokenPiece

_STYLES = {
    "text": "",
    "control": "dim",
    "tag": "dim",
    "location": "magenta",
    "read": "bold blue",
    "drawn": "bold yellow",
}
_LOSS = "bold green"
_BLOCKS = "█▓"
"""By turns, so that neighbours of one data set are told apart."""
_EMPTY = "·"


def show_look(look: Look, *, width: int) -> Group:
    """Samples and packs.

    Args:
        look: what was read.
        width: columns of the terminal.
    """
    colours = colours_of(look.sources)
    return Group(*_sample_lines(look, colours), *_pack_lines(look, colours, width))


def show_stats(stats: PlanStats) -> Group:
    """Tables of the data sets and of the packs, and broken places of shards."""
    colours = colours_of([source.name for source in stats.sources])
    breaks = [place for source in stats.sources for place in source.breaks]
    lines = [
        Text(f"broken: {place.shard} at byte {place.offset}: {place.reason}", style="red")
        for place in breaks
    ]
    counted = (
        f"{stats.num_samples} samples of {stats.samples_in_epoch} in epoch {stats.epoch} counted, "
        f"windows {stats.num_windows} of {stats.windows_in_epoch}"
    )
    return Group(
        _share_table(stats, colours),
        _length_table(stats, colours),
        _plan_table(stats),
        Text(counted, style="dim"),
        *lines,
    )


def _share_table(stats: PlanStats, colours: Mapping[str, str]) -> Table:
    table = _table(
        "data sets", "data set", "shards", "samples", "% samples", "% tokens", "% targets"
    )
    for source in stats.sources:
        table.add_row(
            Text(source.name, style=colours[source.name]),
            str(source.num_shards),
            str(source.num_samples),
            *(f"{share:.1%}" for share in stats.shares(source).values()),
        )
    return table


def _length_table(stats: PlanStats, colours: Mapping[str, str]) -> Table:
    columns = ("mean/p50/p95/max tokens", "targets", "mean/max tiles", "unusable", "too long")
    table = _table("samples", "data set", *columns)
    for source in stats.sources:
        tokens = source.tokens
        table.add_row(
            Text(source.name, style=colours[source.name]),
            f"{tokens.mean:.1f}/{tokens.percentile(0.5)}/{tokens.percentile(0.95)}/{tokens.max}",
            f"{source.targets.mean:.1f}",
            f"{source.tiles.mean:.2f}/{source.tiles.max}",
            _warn(source.num_unusable),
            _warn(source.num_over_limit),
        )
    return table


def _table(title: str, name: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def _warn(count: int) -> Text:
    return Text(str(count), style="bold red" if count else "")


def _plan_table(stats: PlanStats) -> Table:
    tokens, tiles = stats.pack_tokens, stats.pack_tiles
    most = "no limit" if stats.max_tiles_per_pack is None else f"limit {stats.max_tiles_per_pack}"
    table = _table("packs", "", "")
    table.show_header = False
    table.add_column()
    table.add_row("packs", str(stats.num_packs), "")
    table.add_row(
        "samples of a pack",
        f"{stats.pack_samples.mean:.2f}",
        "times the packs of a step: a curriculum's samples_per_step",
    )
    table.add_row("tokens of a pack", f"{tokens.mean:.1f}", f"limit {stats.max_tokens_per_pack}")
    table.add_row("padding", f"{stats.padding:.2%}", "of the tokens of all packs")
    table.add_row(
        "tiles of a pack", f"{tiles.mean:.1f}", f"{most}, deviation {stats.tile_spread:.1%}"
    )
    return table


def _sample_lines(look: Look, colours: Mapping[str, str]) -> Iterator[RenderableType]:
    for sample in look.samples:
        yield _sample_title(sample, colours[sample.source])
        for picture in sample.pictures:
            first, last = picture.tiles[0].number, picture.tiles[-1].number
            span = f"tile {first}" if first == last else f"tiles {first}-{last}"
            yield Text(f"  {picture.summary} ({span})", style="dim")
        yield Padding(_tokens(sample), (0, 0, 1, 2))


def _sample_title(sample: SampleView, colour: str) -> Text:
    return Text.assemble(
        ("■ ", colour),
        (sample.source, f"bold {colour}"),
        f" {sample.task} {sample.key}  ",
        (f"tokens {sample.num_tokens}, with loss {sample.num_targets}, ", "dim"),
        (f"tiles {sample.num_tiles}", "dim"),
    )


def _tokens(sample: SampleView) -> Text:
    text = Text()
    for piece in sample.pieces:
        text.append(_spell(piece), style=_LOSS if piece.carries_loss else _STYLES[piece.kind])
    return text


def _spell(piece: TokenPiece) -> str:
    """As it reads, with line ends; nothing in it may steer the terminal."""
    if piece.kind in ("read", "drawn"):
        return f"[{piece.shown}]"
    if not piece.text.strip(" "):
        return piece.text
    return piece.shown.replace("⏎", "⏎\n") if "\n" in piece.text else piece.shown


def _pack_lines(look: Look, colours: Mapping[str, str], width: int) -> Iterator[RenderableType]:
    columns = max(width - 12, 10)
    for pack in look.packs:
        yield Text.assemble((f"pack {pack.number:<6} ", "bold"), _bar(pack, colours, columns))
        said = f"{len(pack.segments)} samples, {pack.num_tokens} tokens, {pack.num_tiles} tiles"
        yield Text(f"{'':12}{said}, padding {pack.padding:.1%}", style="dim")
    if look.packs:
        names = [Text.assemble((f"{_BLOCKS[0]} ", colours[name]), name) for name in look.sources]
        yield Text("  ").join([Text(" " * 10), *names, Text(f"{_EMPTY} padding")])
    for reason, count in look.left_out.items():
        yield Text(f"left out: {count} x {reason}", style="red")


def _bar(pack: PackView, colours: Mapping[str, str], columns: int) -> Text:
    """A column for every so many tokens; what is shorter than one may have none."""
    bar, begin, tokens = Text(), 0, 0
    scale = columns / max(pack.tokens_per_pack, pack.num_tokens)
    for number, segment in enumerate(pack.segments):
        tokens += segment.num_tokens
        end = round(tokens * scale)
        bar.append(_BLOCKS[number % 2] * (end - begin), style=colours[segment.source])
        begin = end
    bar.append(_EMPTY * (columns - begin), style="dim")
    return bar
