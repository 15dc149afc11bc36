"""Draw loss curves as SVG that follows the colours of the page it stands in."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

Curves = Mapping[str, Sequence[tuple[int, float]]]

_INK = "#010203"
"""Stands for the page's text colour; replaced by ``currentColor`` and used for nothing else."""

_LINES = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16")


def loss_curves(title: str, curves: Curves) -> str:
    """Plot losses over steps, logarithmic where all are positive.

    Args:
        title: also makes the ids inside the SVG unique on the page.
        curves: (step, value) points by name.

    Returns:
        An ``<svg>`` element as wide as its container.
    """
    import matplotlib as mpl  # noqa: PLC0415 takes a second to import

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415 takes a second to import
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 takes a second to import

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK)
    style |= dict.fromkeys(("xtick.color", "ytick.color"), _INK)
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            steps, values = zip(*points, strict=True)
            axes.plot(
                steps,
                values,
                label=_readable(name),
                color=_LINES[number % len(_LINES)],
                linewidth=2.0 if name == "loss" else 1.1,
            )
        if all(value > 0 for points in curves.values() for _, value in points):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.2, color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        if curves:
            axes.legend(fontsize=7, framealpha=0.0, ncols=2)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _readable(name: str) -> str:
    return name.removeprefix("terms/").replace("loss_per_task/", "").replace("_", " ")
