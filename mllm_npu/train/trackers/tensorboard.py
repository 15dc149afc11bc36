"""Metrics, pictures and events as TensorBoard shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mllm_npu.train.trackers.tracker import Tracker, flatten

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Writes event files; names of nested numbers are joined by ``/``.

    Args:
        folder: of the event files.
    """

    def __init__(self, *, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def start(self, step: int, config: str = "") -> None:
        """Open a file of events; those of later steps in older files are hidden."""
        writer = self._open(step)
        if config:
            writer.add_text("config", _as_code(config), step)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write a scalar per number."""
        if self._writer is not None:
            for name, value in flatten(values):
                self._writer.add_scalar(name, value, step)

    def log_picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Write a picture."""
        if self._writer is not None:
            self._writer.add_image(name, picture_3HW, step)

    def log_event(self, step: int, name: str, what: Mapping[str, Any]) -> None:
        """Write a text."""
        if self._writer is not None:
            self._writer.add_text(name, _as_code(json.dumps(what, indent=1)), step)

    def rewind(self, step: int) -> None:
        """Hide the events of later steps."""
        if self._writer is not None:
            self._writer.close()
            self._open(step)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 takes seconds to import

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        return self._writer


def _as_code(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
