"""Show a plan in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mllm_npu.plan.goodput import Goodput
from mllm_npu.plan.plan import Plan, count, duration, gib
from mllm_npu.plan.search import Candidate

BAR = 32
"""Characters of a bar."""
MOST_ROWS = 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def show(plan: Plan, console: Console) -> None:
    """Print a plan."""
    console.print(render(plan))


def render(plan: Plan) -> RenderableType:
    """All of a plan, one table below the other."""
    parts: list[RenderableType] = [_headline(plan), memory_table(plan), time_table(plan)]
    parts += [totals(plan), *map(_goodput_line, plan.goodput)]
    if plan.candidates:
        parts.append(search_table(plan.candidates))
    if plan.advice is not None:
        parts.append(_advice(plan))
    parts += [Text(note, style="dim") for note in plan.notes]
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def bar(share: float, width: int = BAR) -> str:
    """A share from 0 to 1 as a bar of blocks."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def memory_table(plan: Plan) -> Table:
    """What lies on a device when it holds most, against what it has."""
    memory, fit = plan.outcome.traced.memory, plan.outcome.fit
    table = _table("memory of a rank at its peak", "", "of the device")
    rows = dict(memory.at_peak) | {"margin of the allocator": memory.margin}
    for name, size in sorted(rows.items(), key=lambda row: -row[1]):
        if size:
            table.add_row(name.replace("_", " "), gib(size), bar(size / fit.limit))
    style = "bold green" if fit.fits else "bold red"
    table.add_section()
    said = f"needed, of {gib(fit.limit)}" + ("" if fit.needed <= fit.limit else ": does not fit")
    table.add_row(said, gib(fit.needed), bar(fit.needed / fit.limit), style=style)
    if fit.host_needed:
        said = f"host memory of a node, of {gib(fit.host_limit)}"
        table.add_row(said, gib(fit.host_needed), bar(fit.host_needed / fit.host_limit))
    return table


def time_table(plan: Plan) -> Table:
    """What a step spends its time on."""
    step = plan.outcome.step
    table = _table("time of a step", "", "share")
    for name, seconds in sorted(step.parts.items(), key=lambda row: -row[1]):
        if seconds:
            style = "bold" if name == step.limiting else None
            label = PARTS.get(name, name)
            table.add_row(label, duration(seconds), bar(seconds / step.seconds), style=style)
    if step.hidden_exchange:
        table.add_row(
            "exchanges hidden behind computation", duration(step.hidden_exchange), "", style="dim"
        )
    table.add_section()
    table.add_row("step", duration(step.seconds), "", style="bold")
    return table


def totals(plan: Plan) -> Table:
    """Speed, length and cost of the run."""
    step, price = plan.outcome.step, plan.price
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    rows: Mapping[str, str] = {
        "tokens/s": f"{step.tokens_per_second:,.0f} ({step.tokens_per_second_rank:,.0f} a rank)",
        "MFU": f"{step.mfu:.1%}",
        "limited by": PARTS.get(step.limiting, step.limiting),
        "tokens to train": f"{price.tokens:.3g}",
        "length": f"{duration(price.days * 86400)} ({price.device_hours:,.0f} device hours)",
        "cost": "price per device hour not known: plan.price_per_hour=..."
        if price.cost is None
        else f"{price.cost:,.0f}",
        "checkpoints": f"{gib(plan.outcome.traced.checkpoint_bytes)} every "
        f"{duration(plan.checkpoint_seconds)}: goodput {plan.checkpoint_goodput:.1%}",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def search_table(candidates: Sequence[Candidate]) -> Table:
    """Settings that were tried, best first."""
    table = Table(box=None, pad_edge=False, title="settings", title_justify="left")
    for name in ("", "setting", "memory", "step", "tokens/s", "MFU", "limited by"):
        right = name in ("memory", "step", "tokens/s", "MFU")
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    for candidate in candidates[:MOST_ROWS]:
        words, outcome = candidate.setting.words, candidate.outcome
        if outcome is None:
            table.add_row("–", Text(f"{words}: {_first_sentence(candidate.refused)}", style="dim"))
            continue
        step = outcome.step
        table.add_row(
            Text("fits", style="green") if candidate.fits else Text("too large", style="red"),
            words,
            gib(outcome.fit.needed),
            duration(step.seconds),
            f"{step.tokens_per_second:,.0f}",
            f"{step.mfu:.1%}",
            PARTS.get(step.limiting, step.limiting),
        )
    return table


def _first_sentence(text: str | None) -> str:
    return "" if text is None else text.partition(". ")[0]


def _headline(plan: Plan) -> Text:
    traced = plan.outcome.traced
    text = Text(f"{plan.name} on {plan.cluster.describes}\n", style="bold")
    said = (
        f"{plan.outcome.setting.words}; {count(traced.num_parameters)} parameters, "
        f"{count(traced.num_trained)} of them trained"
    )
    return text.append(said, style="not bold")


def _goodput_line(found: Goodput) -> Text:
    return Text(
        f"{found.ranks} ranks: {found.failures_per_day:.3g} failures a day, slow ranks cost "
        f"{found.straggling - 1:.1%}; best checkpoint every {duration(found.best_interval)} "
        f"(Young {duration(found.young)}): goodput {found.best_goodput:.1%}"
    )


def _advice(plan: Plan) -> Text:
    assert plan.advice is not None
    text = Text(f"{plan.advice.text}\n")
    return text.append(" ".join(plan.advice.overrides), style="bold")


def _table(first: str, second: str, third: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, min_width=36)
    table.add_column(second, justify="right", min_width=10)
    table.add_column(third, min_width=BAR)
    return table


PARTS = {
    "compute": "matrix products",
    "memory": "bandwidth of the memory",
    "launch": "start of kernels",
    "host": "waiting for the host",
    "exchange": "waiting for other ranks",
    "optimizer": "update",
    "offload": "copies to and from the host",
    "data": "waiting for data",
}
"""Parts of a step as they are shown."""
