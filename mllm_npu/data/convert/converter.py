"""Converter: run the parts of a source through worker processes, and go on where it was stopped."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.data.convert.formats import choose_format, format_called
from mllm_npu.data.convert.journal import Journal, describe_plan
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.part_pool import Job, Meter, run_jobs
from mllm_npu.data.convert.part_writer import WORK_FOLDER, PartReport, refused_path
from mllm_npu.data.convert.source_format import Options, Part, SourceFormat
from mllm_npu.errors import ConfigError, DataError

QUARANTINE = "quarantine.jsonl"
"""File of an output folder that names every row that could not be converted, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a conversion has made.

    Args:
        format_name: how the source was read.
        parts: parts of the source.
        resumed: parts that an earlier run had converted.
        rows: rows written, those of earlier runs included.
        kinds: rows by kind, most frequent first.
        shards: their shards.
        num_bytes: size of the shards.
        refused: rows refused by reason, most frequent first.
        broken: places at which the source is broken.
    """

    format_name: str
    parts: int
    resumed: int
    rows: int
    kinds: dict[str, int]
    shards: int
    num_bytes: int
    refused: dict[str, int]
    broken: tuple[str, ...]


def open_source(
    source: str | Path, format_name: str, options: Options
) -> tuple[SourceFormat, list[Part]]:
    """Choose the format of a source and split it.

    Args:
        source: file or folder.
        format_name: empty to recognise it.
        options: what the user chose.

    Raises:
        DataError: if there is nothing, or nothing that is known.
        ConfigError: if there is no such format, or an option is of no use.
    """
    if options.rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard={options.rows_per_shard} was asked for. Use 1 or more.")
    if not 0 <= options.draw_share <= 1:
        raise ConfigError(f"draw_share={options.draw_share} was asked for. Use 0 to 1.")
    if options.images and not Path(options.images).is_dir():
        raise DataError(f"The images folder {options.images} is not there. Check --images.")
    listing = list_files(source)
    chosen = format_called(format_name) if format_name else choose_format(listing)
    parts = list(chosen.split(listing, options))
    if not parts:
        raise DataError(
            f"{source} was to be read as {chosen.name}, it holds {listing.describe()} and no rows "
            f"of {chosen.summary}. Check the path, or choose another --format."
        )
    return chosen, parts


def convert(
    source: str | Path,
    out: str | Path,
    *,
    format_name: str = "",
    options: Options | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Convert a data set into indexed shards ``00000-00000.tar``, ``00000-00001.tar``, ...

    Stopped at any point and called again it goes on with the parts that are missing. The shards
    have the same bytes for any number of workers and any number of stops.

    Args:
        source: file or folder.
        out: gets shards, indexes, the journal and ``quarantine.jsonl``.
        format_name: how to read it; empty to recognise it.
        options: what the user chose.
        workers: processes; 1 works in this one.
        progress: told the rows (for tars the megabytes) done, and in all.

    Raises:
        DataError: if source or output fail, or the output belongs to another conversion.
        ConfigError: if an option is of no use.
    """
    options = options or Options()
    if workers < 1:
        raise ConfigError(f"workers={workers} was asked for. Use 1 or more.")
    chosen, parts = open_source(source, format_name, options)
    plan = describe_plan(Path(source), chosen.name, options, parts)
    target = Path(out)
    with Journal(out=target, plan=plan) as journal:
        missing = [number for number in range(len(parts)) if number not in journal.done]
        resumed = len(parts) - len(missing)
        _clear(target, missing)
        jobs = [
            Job(format_name=chosen.name, part=parts[n], number=n, options=options, out=target)
            for n in missing
        ]
        meter = Meter(parts=parts, missing=missing, progress=progress)
        run_jobs(jobs, workers=workers, meter=meter, note=journal.note)
        reports = [journal.done[number] for number in range(len(parts))]
        _write_quarantine(target, reports)
        shutil.rmtree(target / WORK_FOLDER, ignore_errors=True)
    return _sum_up(chosen.name, reports, resumed)


def _clear(out: Path, missing: Sequence[int]) -> None:
    """Take away what an interrupted run left of the parts that are to be done again."""
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    wanted = set(missing)
    for path in out.glob("?????*-?????.tar*"):
        number = path.name.partition("-")[0]
        if number.isdecimal() and int(number) in wanted:
            path.unlink()


def _write_quarantine(out: Path, reports: Sequence[PartReport]) -> None:
    """All refusals in the order of the source; no file if there are none."""
    path = out / QUARANTINE
    path.unlink(missing_ok=True)
    if not any(report.refused for report in reports):
        return
    partial = path.with_name(QUARANTINE + ".partial")
    with partial.open("wb") as file:
        for report in reports:
            file.write(refused_path(out, report.number).read_bytes())
    partial.replace(path)


def _sum_up(format_name: str, reports: Sequence[PartReport], resumed: int) -> Summary:
    refused: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for report in reports:
        refused.update(report.refused)
        kinds.update(report.kinds)
    return Summary(
        format_name=format_name,
        parts=len(reports),
        resumed=resumed,
        rows=sum(report.rows for report in reports),
        kinds=dict(kinds.most_common()),
        shards=sum(len(report.shard_bytes) for report in reports),
        num_bytes=sum(sum(report.shard_bytes) for report in reports),
        refused=dict(refused.most_common()),
        broken=tuple(report.broken for report in reports if report.broken),
    )
