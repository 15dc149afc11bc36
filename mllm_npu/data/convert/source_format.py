"""Source format: what others' data looks like, in parts that are converted one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user chose; together with the source it decides every byte of the output.

    Args:
        images: folder in which pictures named by rows lie; empty for the folder of the file.
        class_names: names of numbered classes, by number.
        rows_per_shard: rows of one shard.
        draw_share: share of the pictures of pickled documents that are marked to be drawn.
    """

    images: str = ""
    class_names: tuple[str, ...] = ()
    rows_per_shard: int = 1000
    draw_share: float = 0.5

    @property
    def rows_per_part(self) -> int:
        """Rows after which a large file is split; a part is what a restart does again."""
        return self.rows_per_shard * max(1, 4000 // self.rows_per_shard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of the source that one worker converts from its beginning to its end.

    Args:
        path: the file, or the folder of ``names``.
        start: where it begins in the file, in the format's own unit.
        end: where it ends.
        first: number of its first row in the file.
        num_rows: rows in it, 0 where they are not known before reading.
        num_bytes: about how many bytes of the source it stands for.
        names: files of the folder that it consists of.
        broken: why nothing of the file can be read behind it, empty if all is well.
    """

    path: str
    start: int = 0
    end: int = 0
    first: int = 0
    num_rows: int = 0
    num_bytes: int = 0
    names: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row that cannot be converted.

    Args:
        reason: why, in words that are the same for all rows of that fate.
        at: its key or line in the source.
        detail: what was found.
        broken: whether the source is broken there, so that what follows is lost.
    """

    reason: str
    at: str
    detail: str = ""
    broken: bool = False


class SourceFormat(ABC):
    """Reads one kind of data set.

    Attributes:
        name: as ``--format`` calls it.
        aliases: other names that ``--format`` takes.
        summary: one line for lists.
    """

    name: str
    aliases: tuple[str, ...] = ()
    summary: str

    @abstractmethod
    def recognises(self, listing: Listing) -> bool:
        """Whether the files look like this format; reads a few bytes at most."""

    @abstractmethod
    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """The parts of the source in a fixed order, the same at every call.

        Raises:
            DataError: if a file cannot be read.
        """

    @abstractmethod
    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """The rows of a part in order, and what became of those that cannot be converted.

        Keys are unique within the part only.
        """


def refuse(error: SkipSample, at: str) -> Refusal:
    """A refusal of a message of the form ``reason`` or ``reason: detail``."""
    reason, _, detail = str(error).partition(": ")
    return Refusal(reason=reason, at=at, detail=detail)
