"""Rendered source: scenes whose pictures are drawn when read, differently at every visit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mllm_npu.data.forms import FormTable, FormTotals
from mllm_npu.data.index import IndexHead
from mllm_npu.data.row import Row
from mllm_npu.data.row_forms import RowForms
from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.source import SampleSource, check_source
from mllm_npu.data.tasks.task import Task
from mllm_npu.data.worlds.scene_pictures import PICTURE_SIZE, draw_jitters, parse_scene, render
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation
from mllm_npu.processing.processor import Processor


class RenderedSource(SampleSource):
    """Samples whose json describes ``scenes`` instead of bringing pictures.

    All pictures of a row are drawn with the same jitter, so an edit changes nothing but what it
    says.

    Args:
        name: name of the data set, as metrics show it.
        shards: webdataset tars: paths, globs, brace lists, fsspec URLs, or a list of those.
        task: what the rows mean.
        picture_size: edge of the drawn pictures in pixels.
        weight: share of the samples relative to other sources.
        cache_rows: whether rows stay in memory once read.

    Raises:
        ConfigError: if the name is empty or the weight negative.
        DataError: if no shard matches.
    """

    def __init__(
        self,
        *,
        name: str,
        shards: str | Sequence[str],
        task: Task,
        picture_size: int = PICTURE_SIZE,
        weight: float = 1.0,
        cache_rows: bool = False,
    ) -> None:
        check_source(name, weight)
        self.name = name
        self.weight = weight
        self.task = task
        self.picture_size = picture_size
        self._shards = ShardSet(shards=shards, cache_rows=cache_rows)
        self._forms = RowForms(
            shards=self._shards,
            task=task,
            read=self._stand_in,
            meaning=f"rendered {picture_size}",
        )

    def __len__(self) -> int:
        return len(self._shards)

    def row(self, index: int) -> Row:
        """The row of a sample with its pictures, always drawn the same way."""
        rng = Random(f"{self.name}/{index}")
        return render_row(self._shards.row(index), rng, size=self.picture_size)

    @property
    def shard_sizes(self) -> NDArray[np.int64]:
        """Samples of each shard."""
        return self._shards.sizes

    @property
    def heads(self) -> Sequence[IndexHead]:
        """What is known of each shard."""
        return self._shards.heads

    def conversation(self, index: int, rng: Random, form: int | None = None) -> Conversation:
        """The conversation of a sample, its pictures drawn as the rng says."""
        row = render_row(self._shards.row(index), rng, size=self.picture_size)
        return replace(self.task.to_conversation(row, rng, form), source=self.name)

    def forms(self, shard: int, processor: Processor) -> FormTable:
        """What the samples of a shard can become; nothing is drawn for it."""
        return self._forms.table(shard, processor)

    def totals(self, shard: int, processor: Processor) -> FormTotals:
        """Sums over the forms of a shard."""
        return self._forms.totals(shard, processor)

    def fingerprint(self) -> str:
        """Shards, task and size of the pictures."""
        return f"{self._shards.fingerprint()}{self.task.meaning}{self._forms.meaning}"

    def _stand_in(self, index: int) -> Row:
        """A row with a blank for every scene, as large as its picture will be."""
        blank = Image.new("RGB", (self.picture_size, self.picture_size))
        row = self._shards.row(index)
        return replace(row, rendered=dict.fromkeys(_scenes(row), blank))

    def where(self, index: int) -> str:
        """The shard of a sample."""
        return self._shards.path(index)


def render_row(row: Row, rng: Random, *, size: int) -> Row:
    """The row with every scene it describes drawn in place of the picture of that name.

    Raises:
        SkipSample: if it describes none, or a broken one.
    """
    jitters = draw_jitters(rng)
    pictures = {
        name: render(parse_scene(scene), jitters, size=size) for name, scene in _scenes(row).items()
    }
    return replace(row, rendered=pictures)


def _scenes(row: Row) -> Mapping[str, object]:
    scenes = row.json().get("scenes")
    if not isinstance(scenes, dict) or not scenes:
        raise SkipSample("scenes missing")
    return scenes
