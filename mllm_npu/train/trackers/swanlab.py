"""Metrics, pictures and events as SwanLab shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mllm_npu.train.trackers.service import (
    import_package,
    keep_run_id,
    read_settings,
    refuse_start,
)
from mllm_npu.train.trackers.tracker import Tracker, flatten


class SwanLab(Tracker):
    """Reports to SwanLab; names of nested numbers are joined by ``/``.

    A resumed run goes on in the same run of the service, whose id is kept in ``swanlab_run.txt``.
    The service cannot take anything back.

    Args:
        folder: of the run; the files of the service go to ``swanlab`` in it.
        project: that the run belongs to.
        name: of the run.
        workspace: person or organisation; None takes that of the login.
        mode: ``online``; ``offline`` writes files that ``swanlab sync`` sends later; ``local``
            writes files that ``swanlab watch`` shows; ``disabled``.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        project: str,
        name: str | None = None,
        workspace: str | None = None,
        mode: Literal["online", "offline", "local", "disabled"] = "online",
    ) -> None:
        self.folder = Path(folder)
        self.project = project
        self.name = name
        self.workspace = workspace
        self.mode = mode
        self._swanlab = import_package("swanlab")
        self._run: Any = None

    def start(self, step: int, config: str = "") -> None:
        """Open the run of the service."""
        run_id = keep_run_id(self.folder / "swanlab_run.txt", step)
        refusals = (RuntimeError, OSError, self._swanlab.exceptions.AuthenticationError)
        try:
            self._run = self._swanlab.init(
                project=self.project,
                name=self.name,
                workspace=self.workspace,
                log_dir=str(self.folder / "swanlab"),
                id=run_id,
                resume="allow",
                reinit=True,
                mode=self.mode,
                config=read_settings(config),
            )
        except refusals as error:
            raise refuse_start("swanlab", self.mode, error) from error

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send numbers."""
        self._send(step, dict(flatten(values)))

    def log_picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Send a picture."""
        self._send(step, {name: self._swanlab.Image(picture_3HW.permute(1, 2, 0).cpu().numpy())})

    def log_event(self, step: int, name: str, what: Mapping[str, Any]) -> None:
        """Send a text."""
        self._send(step, {name: self._swanlab.Text(json.dumps(what, indent=1))})

    def rewind(self, step: int) -> None:
        """Take nothing back; see above."""

    def close(self) -> None:
        """Send what is left, and end the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.log(values, step=step)
