"""What can be said of a split whose right answers are not published."""

from __future__ import annotations

from collections.abc import Sequence

from mllm_npu.evaluate.figure import Figure, mean_figure
from mllm_npu.evaluate.task import Record, count_unread


def answered_figure(records: Sequence[Record], *, name: str, title: str, citation: str) -> Figure:
    """The share of replies that can be read, in place of a score.

    Args:
        records: at least one.
        name: of the task; ``/answered`` is added, so that nobody takes it for a score.
        title: of the task.
        citation: of the task.
    """
    return mean_figure(
        name=f"{name}/answered",
        title=f"{title}: share of replies that can be read; the right answers are not published",
        values=[float(record.understood is not None) for record in records],
        citation=citation,
        num_unread=count_unread(records),
    )
