"""Part writer: convert one part of a source into shards that appear only when all of it is done."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.row_kind import kind_of_row
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat
from mllm_npu.data.index import find_index
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import DataError

WORK_FOLDER = ".converting"
REFUSED_FOLDER = ".refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What became of a part.

    Args:
        number: of the part.
        rows: rows written.
        kinds: rows by kind.
        shard_bytes: size of each of its shards.
        refused: refusals by reason.
        broken: where its source is broken, empty if it is not.
    """

    number: int
    rows: int
    kinds: dict[str, int]
    shard_bytes: tuple[int, ...]
    refused: dict[str, int]
    broken: str = ""


def shard_name(part: int, shard: int) -> str:
    """File name of a shard: ``00003-00000.tar``."""
    return f"{part:05d}-{shard:05d}.tar"


def refused_path(out: Path, part: int) -> Path:
    """Where the refusals of a part lie until the end."""
    return out / REFUSED_FOLDER / f"{part:05d}.jsonl"


def write_part(
    *,
    source_format: SourceFormat,
    part: Part,
    number: int,
    options: Options,
    out: Path,
    moved: Callable[[int, int], None] = lambda rows, num_bytes: None,
) -> PartReport:
    """Convert a part; the same part gives the same bytes.

    Args:
        source_format: reads it.
        part: what to convert.
        number: of the part among all.
        options: what the user chose.
        out: gets the shards, their indexes and the refusals.
        moved: told the rows seen and their bytes after every row; may raise to stop.

    Raises:
        DataError: if the source or ``out`` fails.
    """
    work = out / WORK_FOLDER / f"{number:05d}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    refused_path(out, number).parent.mkdir(exist_ok=True)
    entries = _Entries(part=part, number=number, moved=moved)
    rows = entries.rows(source_format.read(part, options), work / "refused.jsonl")
    paths, written = [], 0
    for shard in count():
        first = next(rows, None)
        if first is None:
            break
        paths.append(work / shard_name(number, shard))
        written += write_shard(paths[-1], chain([first], islice(rows, options.rows_per_shard - 1)))
    (work / "refused.jsonl").replace(refused_path(out, number))
    for path in paths:
        path.replace(out / path.name)
        find_index(out / path.name)
    shutil.rmtree(work, ignore_errors=True)
    return PartReport(
        number=number,
        rows=written,
        kinds=dict(entries.kinds),
        shard_bytes=tuple((out / path.name).stat().st_size for path in paths),
        refused=dict(entries.refused),
        broken=entries.broken,
    )


class _Entries:
    """Counts what comes out of a part and gives its rows keys of their own."""

    def __init__(self, *, part: Part, number: int, moved: Callable[[int, int], None]) -> None:
        self.part = part
        self.number = number
        self.moved = moved
        self.kinds: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.broken = ""
        self._seen: Counter[str] = Counter()

    def rows(self, entries: Iterator[Row | Refusal], refused: Path) -> Iterator[Row]:
        """The rows; refusals are written to a file."""
        num_bytes = 0
        with refused.open("w", encoding="utf-8") as file:
            for position, entry in enumerate(entries, start=1):
                if isinstance(entry, Row):
                    self.kinds[kind_of_row(entry)] += 1
                    num_bytes += sum(map(len, entry.members.values()))
                    yield Row(key=self._key(entry.key), members=entry.members)
                else:
                    self.refused[entry.reason] += 1
                    file.write(json.dumps(quarantine_line(self.part, entry)) + "\n")
                    if entry.broken:
                        self.broken = f"{self.part.path}: {entry.at}"
                self.moved(position, num_bytes)

    def _key(self, key: str) -> str:
        """A key inside the folder of the part, counted on where the source repeats it."""
        steps = [step for step in key.split("/") if step not in ("", ".", "..")]
        key = f"{self.number:05d}/{'/'.join(steps)}"
        self._seen[key] += 1
        return key if self._seen[key] == 1 else f"{key}~{self._seen[key]}"


def quarantine_line(part: Part, refusal: Refusal) -> dict[str, Any]:
    """What ``quarantine.jsonl`` says of a refusal."""
    line = asdict(refusal)
    del line["broken"]
    return {"source": part.path, **line}


def check_written(out: Path, report: PartReport) -> bool:
    """Whether the shards of a part are still there as they were written."""
    try:
        sizes = [
            (out / shard_name(report.number, shard)).stat().st_size
            for shard in range(len(report.shard_bytes))
        ]
    except OSError:
        return False
    return tuple(sizes) == report.shard_bytes


def forbid_foreign_shards(out: Path) -> None:
    """Refuse a folder with shards that no conversion there has written.

    Raises:
        DataError: if there are any.
    """
    if any(out.glob("*.tar")):
        raise DataError(f"{out} holds shards already. Give --out an empty folder.")
