"""Journal: what a conversion set out to do and which parts are done, so that it can go on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from mllm_npu.data.convert.part_writer import (
    PartReport,
    check_written,
    forbid_foreign_shards,
    refused_path,
)
from mllm_npu.data.convert.source_format import Options, Part
from mllm_npu.errors import DataError

VERSION = 1
FILE_NAME = "conversion.jsonl"


def describe_plan(
    source: Path, format_name: str, options: Options, parts: Sequence[Part]
) -> dict[str, Any]:
    """What decides the output: the source and its state, the format and the options."""
    state = hashlib.sha256()
    for part in parts:
        state.update(json.dumps(asdict(part)).encode())
        for path in [Path(part.path) / name for name in part.names] or [Path(part.path)]:
            stat = path.stat()
            state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return {
        "version": VERSION,
        "source": str(source.resolve()),
        "format": format_name,
        "options": json.loads(json.dumps(asdict(options))),
        "num_parts": len(parts),
        "source_state": state.hexdigest(),
    }


class Journal:
    """The file ``conversion.jsonl`` of an output folder; one process at a time may hold it.

    Args:
        out: the output folder.
        plan: of this conversion.

    Attributes:
        done: reports of the parts that need not be converted again, by number.

    Raises:
        DataError: if another process holds it, or the folder belongs to another conversion.
    """

    def __init__(self, *, out: Path, plan: dict[str, Any]) -> None:
        self.path = out / FILE_NAME
        self.done: dict[int, PartReport] = {}
        self._plan = plan
        self._folder = _lock(out)
        try:
            lines = _read_lines(self.path)
            _check_plan(out, lines[0] if lines else None, plan)
            for line in lines[1:]:
                report = PartReport(**{**line, "shard_bytes": tuple(line["shard_bytes"])})
                if check_written(out, report) and refused_path(out, report.number).is_file():
                    self.done[report.number] = report
            self._rewrite()
            self._file = self.path.open("a", encoding="utf-8")
        except BaseException:
            os.close(self._folder)
            raise

    def note(self, report: PartReport) -> None:
        """Write down that a part is done; survives a loss of power."""
        self.done[report.number] = report
        self._file.write(json.dumps(asdict(report)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _rewrite(self) -> None:
        """The plan and the parts in order, under a temporary name first."""
        reports = [asdict(self.done[number]) for number in sorted(self.done)]
        partial = self.path.with_name(FILE_NAME + ".partial")
        lines = [json.dumps(line) + "\n" for line in [self._plan, *reports]]
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(self.path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._rewrite()
        os.close(self._folder)


def _lock(out: Path) -> int:
    """Hold a folder until its descriptor is closed or the process ends, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise DataError(
            f"{out} was to take the shards: {error.strerror}. Give --out a folder to write to."
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise DataError(
            f"Another conversion is writing to {out}. Wait for it, or give another --out."
        ) from error
    return folder


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; the last one may have been cut off by the end of a process."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(
            f"{path} is broken. Delete its folder to convert anew, or give another --out."
        ) from error


def _check_plan(out: Path, then: dict[str, Any] | None, now: dict[str, Any]) -> None:
    if then is None:
        forbid_foreign_shards(out)
    elif then != now:
        raise DataError(_explain_change(out, then, now))


def _explain_change(out: Path, then: dict[str, Any], now: dict[str, Any]) -> str:
    names = {"source_state": "files of the source", "num_parts": "number of parts"}
    changed = []
    for name in now:
        if then.get(name) == now[name]:
            continue
        if name == "options":
            before = then.get(name) or {}
            changed += [
                f"{option} ({before.get(option)!r} then, {value!r} now)"
                for option, value in now[name].items()
                if before.get(option) != value
            ]
        elif name in names:
            changed.append(names[name])
        else:
            changed.append(f"{name} ({then.get(name)!r} then, {now[name]!r} now)")
    return (
        f"{out} holds a conversion that began otherwise; changed: {', '.join(changed)}. "
        f"Use what it began with to go on, or delete {out} or give another --out to start anew."
    )
