"""Write a plan as a page with pictures, and as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate import template
from mllm_npu.plan.cluster import Cluster
from mllm_npu.plan.pictures import COLOURS, goodput_picture, stack, time_line
from mllm_npu.plan.plan import DAY, Plan, count, duration, gib
from mllm_npu.plan.report import PARTS

TEMPLATE = Path(__file__).with_name("plan.html")
MOST_ROWS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A figure in large letters.

    Args:
        title: what it is.
        value: the number.
        foot: what is to be known about it.
        met: whether it is as it must be; None where nothing must be.
    """

    title: str
    value: str
    foot: str = ""
    met: bool | None = None


def write_page(plan: Plan, folder: Path) -> Path:
    """Write plan.json and plan.html.

    Args:
        plan: to show.
        folder: made where it is not there.

    Returns:
        The page.

    Raises:
        ConfigError: the folder cannot be written.
    """
    page = folder / "plan.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(
            json.dumps(plan.as_values(), indent=2) + "\n", encoding="utf-8"
        )
        page.write_text(render_page(plan), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error}. Choose a folder that can, with --out."
        ) from error
    return page


def render_page(plan: Plan) -> str:
    """The page as one self-contained HTML text."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only a page needs it
    from markupsafe import Markup  # noqa: PLC0415 - only a page needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (template.FOLDER / "page.css").read_text(encoding="utf-8")
    memory, fit, step = plan.outcome.traced.memory, plan.outcome.fit, plan.outcome.step
    held = {name.replace("_", " "): float(size) for name, size in memory.at_peak.items()}
    held["margin of the allocator"] = float(memory.margin)
    busy, exchanges = time_line(step)
    traced = plan.outcome.traced
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        plan=plan,
        css=Markup(style),
        lead=f"On {plan.cluster.describes}: {plan.outcome.setting.words}. "
        f"{count(traced.num_parameters)} parameters, {count(traced.num_trained)} of them trained.",
        cards=make_cards(plan),
        memory=stack(held, fit.limit),
        limit=gib(fit.limit),
        sizes=gib,
        times=stack({PARTS.get(k, k): v for k, v in step.parts.items()}, step.seconds),
        step_seconds=duration(step.seconds),
        durations=duration,
        busy=busy,
        exchanges=exchanges,
        ranked=rank_rows(plan),
        goodput=goodput_picture(plan.goodput),
        fleet=[
            {
                "colour": COLOURS[number % len(COLOURS)],
                "name": f"{one.ranks} ranks",
                "failures": f"{one.failures_per_day:.3g}",
                "best": duration(one.best_interval),
                "share": f"{one.best_goodput:.1%}",
            }
            for number, one in enumerate(plan.goodput)
        ],
        sources=list_sources(plan.cluster),
    )


def make_cards(plan: Plan) -> list[Card]:
    """The figures at the top."""
    step, fit, price = plan.outcome.step, plan.outcome.fit, plan.price
    return [
        Card(
            title="memory of a device",
            value=gib(fit.needed),
            foot=f"of {gib(fit.limit)}",
            met=fit.fits,
        ),
        Card(title="step", value=duration(step.seconds), foot=f"{PARTS[step.limiting]} takes most"),
        Card(
            title="tokens per second",
            value=f"{step.tokens_per_second:,.0f}",
            foot=f"{step.tokens_per_second_rank:,.0f} a rank",
        ),
        Card(title="MFU", value=f"{step.mfu:.1%}", foot="of the peak in the compute dtype"),
        Card(
            title=f"{price.tokens:.3g} tokens",
            value=duration(price.days * DAY),
            foot=f"{price.device_hours:,.0f} device hours"
            + ("" if price.cost is None else f", cost {price.cost:,.0f}"),
        ),
        Card(
            title="goodput with the configured checkpoints",
            value=f"{plan.checkpoint_goodput:.1%}",
            foot=f"every {duration(plan.checkpoint_seconds)}, "
            f"{gib(plan.outcome.traced.checkpoint_bytes)}",
        ),
    ]


def rank_rows(plan: Plan) -> Sequence[dict[str, Any]]:
    """Rows of the search, best first."""
    outcomes = [one.outcome for one in plan.candidates if one.outcome is not None]
    fastest = max((one.step.tokens_per_second for one in outcomes), default=1.0)
    rows: list[dict[str, Any]] = []
    for one in plan.candidates[:MOST_ROWS]:
        row: dict[str, Any] = {
            "words": one.setting.words,
            "own": one.setting == plan.outcome.setting,
            "refused": one.refused,
        }
        if one.outcome is not None:
            step = one.outcome.step
            row |= {
                "fits": one.fits,
                "share": 100 * step.tokens_per_second / fastest,
                "speed": f"{step.tokens_per_second:,.0f}",
                "needed": gib(one.outcome.fit.needed),
                "step": duration(step.seconds),
                "mfu": f"{step.mfu:.1%}",
            }
        rows.append(row)
    return rows


def list_sources(cluster: Cluster) -> list[tuple[str, str]]:
    """Where the numbers of a card are from."""
    found = [*cluster.accelerator.sources.items(), *cluster.sources.items()]
    found += [
        ("links inside a node", cluster.inside.source),
        ("links between nodes", cluster.between.source),
        ("efficiency", cluster.efficiency.source),
    ]
    return [(name.replace("_", " "), source) for name, source in found if source]
