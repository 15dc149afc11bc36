"""Page: what was looked at as one self-contained HTML file, with its pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mllm_npu.data.inspect.chart import WIDTH, draw_histogram, draw_sizes
from mllm_npu.data.inspect.look import Look
from mllm_npu.data.inspect.palette import colours_of
from mllm_npu.data.inspect.picture_view import PictureView, tile_pictures
from mllm_npu.data.inspect.plan_stats import PlanStats
from mllm_npu.data.inspect.sample_view import SampleView
from mllm_npu.errors import DataError

TEMPLATE = Path(__file__).with_name("inspect.html")

_PICTURE_EDGE = 480
_TILE_EDGE = 112
_SMALL_TILE = 64
"""Tiles up to that edge are kept without loss and shown with their pixels as squares."""
_QUALITY = 82


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPicture:
    """A picture inside the page.

    Args:
        url: its data URL.
        caption: for who points at it or cannot see it.
        is_pixelated: whether its pixels are shown as squares.
        view: the picture of the sample it is, with its tiles; None for others.
    """

    url: str
    caption: str
    is_pixelated: bool
    view: PictureView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """A sample with its pictures.

    Args:
        view: the sample.
        pictures: each as its tiles show it.
        tiles: as the vision encoder gets them, in order.
        decoded: what the image decoder learns to draw, and from what.
    """

    view: SampleView
    pictures: tuple[ShownPicture, ...]
    tiles: tuple[ShownPicture, ...]
    decoded: tuple[ShownPicture, ...]


def write_page(path: Path, page: str) -> None:
    """Write a page under a temporary name, then rename it.

    Raises:
        DataError: if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True) if partial.parent.is_dir() else None
        raise DataError(
            f"The page {path} cannot be written: {error}. Give a file in a folder that can be "
            "written, with room."
        ) from error


def render_page(look: Look, stats: PlanStats, *, title: str, tile_size: int) -> str:
    """The page as one HTML text.

    Args:
        look: samples and packs.
        stats: numbers of the plan they are from.
        title: headline, such as the name of the experiment.
        tile_size: pixels of a tile's edge.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 only a page needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = lambda value: f"{value:.1%}"
    environment.filters["number"] = _format
    colours = colours_of(look.sources)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        look=look,
        stats=stats,
        samples=[show_sample(sample) for sample in look.samples],
        most_tiles=max((pack.num_tiles for pack in look.packs), default=0),
        colours=colours,
        charts=_draw_charts(stats, colours, tile_size),
        chart_width=WIDTH,
    )


def show_sample(view: SampleView) -> ShownSample:
    """A sample with its pictures as data URLs of bounded size."""
    is_small = view.tiles.shape[-1] <= _SMALL_TILE
    pictures = [
        _show(
            picture.assemble(view.tiles, longest=_PICTURE_EDGE),
            picture.summary,
            is_small=is_small,
            view=picture,
        )
        for picture in view.pictures
    ]
    tiles = [
        _show(tile, f"tile {number}", is_small=is_small)
        for number, tile in enumerate(tile_pictures(view.tiles, longest=_TILE_EDGE))
    ]
    decoded = [
        _show(picture, f"{word} {number}", is_small=pixels.shape[-1] <= _SMALL_TILE)
        for word, pixels in (("condition", view.conditions), ("target", view.targets))
        if pixels is not None
        for number, picture in enumerate(tile_pictures(pixels, longest=_TILE_EDGE))
    ]
    return ShownSample(
        view=view, pictures=tuple(pictures), tiles=tuple(tiles), decoded=tuple(decoded)
    )


def _show(
    picture: Image.Image, caption: str, *, is_small: bool, view: PictureView | None = None
) -> ShownPicture:
    file = io.BytesIO()
    if is_small:
        picture.save(file, format="PNG", optimize=True)
    else:
        picture.save(file, format="JPEG", quality=_QUALITY)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return ShownPicture(
        url=f"data:image/{'png' if is_small else 'jpeg'};base64,{encoded}",
        caption=caption,
        is_pixelated=is_small,
        view=view,
    )


def _format(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def _draw_charts(stats: PlanStats, colours: Mapping[str, str], tile_size: int) -> dict[str, Any]:
    packs = "#7c8aa5"
    return {
        "tokens": draw_histogram(
            [(source.name, colours[source.name], source.tokens) for source in stats.sources], low=0
        ),
        "pack_tokens": draw_histogram(
            [("tokens of a pack", packs, stats.pack_tokens)], limit=stats.max_tokens_per_pack
        ),
        "pack_tiles": draw_histogram(
            [("tiles of a pack", packs, stats.pack_tiles)], limit=stats.max_tiles_per_pack or 0
        ),
        "sizes": draw_sizes(
            {source.name: source.picture_sizes for source in stats.sources},
            colours,
            tile_size=tile_size,
        ),
    }
