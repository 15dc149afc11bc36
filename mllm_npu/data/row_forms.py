"""Row forms: what the rows of shards can become under a task, kept beside them or measured now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from mllm_npu.data.forms import (
    Form,
    FormTable,
    FormTotals,
    forms_suffix,
    keep_forms,
    load_forms,
    load_totals,
)
from mllm_npu.data.row import Row
from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.tasks.task import Task
from mllm_npu.errors import SkipSample
from mllm_npu.processing.processor import Processor

_COUNTED_TEXTS = 16384


class RowForms:
    """Forms of the rows of a set of shards.

    Args:
        shards: the set.
        task: what the rows mean.
        read: gives the row of a sample; None reads it as it is stored.
        meaning: what else the forms follow from.
    """

    def __init__(
        self,
        *,
        shards: ShardSet,
        task: Task,
        read: Callable[[int], Row] | None = None,
        meaning: str = "",
    ) -> None:
        self.shards = shards
        self.task = task
        self.meaning = meaning
        self._read = read

    def table(self, shard: int, processor: Processor) -> FormTable:
        """Forms of a shard's rows; measured and kept where there are none yet.

        Args:
            shard: its number in the set.
            processor: counts tokens.
        """
        kept = load_forms(*self._place(shard, processor))
        if kept is not None:
            return kept
        table = FormTable.of(self._measure(shard, processor))
        keep_forms(*self._place(shard, processor), table)
        return table

    def totals(self, shard: int, processor: Processor) -> FormTotals:
        """Sums over the forms of a shard; arguments as for ``table``."""
        kept = load_totals(*self._place(shard, processor))
        return self.table(shard, processor).totals() if kept is None else kept

    def _place(self, shard: int, processor: Processor) -> tuple[str, str, dict[str, str]]:
        """Shard, ending of the file that belongs to it, and the state of the shard."""
        follows_from = (self.task.meaning, processor.tokenizer_fingerprint, self.meaning)
        path = self.shards.heads[shard].path
        return path, forms_suffix("/".join(follows_from)), self.shards.signature(shard)

    def _measure(self, shard: int, processor: Processor) -> Iterator[Sequence[Form]]:
        """What each row can become; nothing for a row that cannot be used."""
        read = self.shards.row if self._read is None else self._read
        count_tokens = lru_cache(maxsize=_COUNTED_TEXTS)(processor.count_tokens)
        first = self.shards.first(shard)
        for number in range(first, first + int(self.shards.sizes[shard])):
            try:
                yield self.task.forms(read(number), count_tokens)
            except SkipSample:
                yield ()
