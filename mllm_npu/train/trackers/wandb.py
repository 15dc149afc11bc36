"""Metrics, pictures and events as Weights & Biases shows them."""

from __future__ import annotations

import html
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


class Wandb(Tracker):
    """Reports to Weights & Biases; names of nested numbers are joined by ``/``.

    A resumed run goes on in the same run of the service, whose id is kept in ``wandb_run.txt``. The
    service cannot take anything back: steps that are done again are shown twice.

    Args:
        folder: of the run; the files of the service go to ``wandb`` in it.
        project: that the run belongs to.
        name: of the run.
        entity: person or team; None takes that of the login.
        mode: ``online``; ``offline`` writes files that ``wandb sync`` sends later; ``disabled``.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        project: str,
        name: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
    ) -> None:
        self.folder = Path(folder)
        self.project = project
        self.name = name
        self.entity = entity
        self.mode = mode
        self._wandb = import_package("wandb")
        self._run: Any = None

    def start(self, step: int, config: str = "") -> None:
        """Open the run of the service."""
        run_id = keep_run_id(self.folder / "wandb_run.txt", step)
        try:
            self._run = self._wandb.init(
                project=self.project,
                name=self.name,
                entity=self.entity,
                dir=str(self.folder.resolve()),
                id=run_id,
                resume="allow",
                reinit="create_new",
                mode=self.mode,
                config=read_settings(config),
                allow_val_change=True,
            )
        except self._wandb.Error as error:
            raise refuse_start("wandb", self.mode, error) from error
        # Its own step never goes back, and would drop what comes after a resume or a rollback.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send numbers."""
        self._send(step, dict(flatten(values)))

    def log_picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Send a picture."""
        self._send(step, {name: self._wandb.Image(picture_3HW.permute(1, 2, 0).cpu().numpy())})

    def log_event(self, step: int, name: str, what: Mapping[str, Any]) -> None:
        """Send a text."""
        text = html.escape(json.dumps(what, indent=1))
        self._send(step, {name: self._wandb.Html(f"<pre>{text}</pre>")})

    def rewind(self, step: int) -> None:
        """Take nothing back; see above."""

    def close(self) -> None:
        """Send what is left, and end the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.log({"step": step, **values})
