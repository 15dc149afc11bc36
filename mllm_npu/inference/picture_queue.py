"""Pictures that wait to be drawn: those that are asked for alike are one batch, the oldest first.

Shape letters: G pictures, P tokens of a drawn picture, V vision width.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Generator, Tensor

from mllm_npu.inference.drawing import draw_pictures
from mllm_npu.inference.events import ImageMade
from mllm_npu.inference.live_row import LiveRow

if TYPE_CHECKING:
    from mllm_npu.models.drawing import Drawing


@dataclass(slots=True, kw_only=True, eq=False)
class PictureJob:
    """One picture of a reply.

    Args:
        row: the request.
        number: of the picture in the reply.
        generator: of its noise.
        features_PV: what is drawn, where the model computes.
        before: the picture of the same reply that this one changes; it is drawn first.

    Attributes:
        begun: when it was asked for.
        made: the event, when it is drawn.
    """

    row: LiveRow
    number: int
    generator: Generator
    features_PV: Tensor
    before: PictureJob | None = None
    begun: float = field(default_factory=time.monotonic, init=False)
    made: ImageMade | None = field(default=None, init=False)

    @property
    def is_ready(self) -> bool:
        """Whether what it changes is there."""
        return self.before is None or self.before.made is not None

    @property
    def shown(self) -> Image.Image | None:
        """What it changes."""
        made = None if self.before is None else self.before.made
        return self.row.shown if made is None else made.picture

    @property
    def wish(self) -> tuple[int, float, float]:
        """What must be the same in a batch."""
        options = self.row.options
        return options.image_steps, options.guidance, options.image_guidance


class PictureQueue:
    """Jobs in the order in which they came; one thread adds, one may draw.

    Args:
        artist: draws; None for a model that does not.
        max_batch: pictures that are drawn together.
    """

    def __init__(self, artist: Drawing | None, *, max_batch: int) -> None:
        self._artist = artist
        self.max_batch = max_batch
        self._lock = threading.Lock()
        self._jobs: deque[PictureJob] = deque()
        self._last_of: dict[LiveRow, PictureJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, row: LiveRow, features_PV: Tensor) -> None:
        """Ask for the next picture of a reply; the features are on the model's device."""
        with self._lock:
            changes = self._artist is not None and self._artist.image_decoder.takes_condition
            job = PictureJob(
                row=row,
                number=row.num_pictures,
                generator=row.picture_generator(),
                features_PV=features_PV,
                before=self._last_of.get(row) if changes else None,
            )
            if changes:
                self._last_of[row] = job
            self._jobs.append(job)

    def forget(self, row: LiveRow) -> None:
        """Leave out what is not drawn yet of a reply that has ended or that nobody waits for."""
        with self._lock:
            self._last_of.pop(row, None)
            self._jobs = deque(job for job in self._jobs if job.row is not row)

    def take(self) -> list[PictureJob]:
        """The next batch, which leaves the queue: the oldest ready job and those like it."""
        with self._lock:
            first = next((job for job in self._jobs if job.is_ready), None)
            if first is None:
                return []
            alike = [job for job in self._jobs if job.is_ready and job.wish == first.wish]
            batch = alike[: self.max_batch]
            self._jobs = deque(job for job in self._jobs if job not in batch)
            return batch

    @torch.inference_mode()
    def draw(self, batch: list[PictureJob]) -> None:
        """Draw a batch; each job knows its picture afterwards."""
        if self._artist is None or not batch:
            return
        features_GPV = torch.stack([job.features_PV for job in batch])
        pictures = draw_pictures(
            self._artist,
            features_GPV,
            options=[job.row.options for job in batch],
            generators=[job.generator for job in batch],
            conditions=[job.shown for job in batch],
        )
        on_host = features_GPV.float().cpu()
        for job, picture, features_PV in zip(batch, pictures, on_host, strict=True):
            job.made = ImageMade(picture=picture, features=features_PV)
