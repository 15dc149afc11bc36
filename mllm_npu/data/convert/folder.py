"""A folder of loose files, named as the members of a webdataset tar, to indexed shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mllm_npu.data.index import find_index
from mllm_npu.data.row import Row, is_picture_name
from mllm_npu.data.shards import split_name, write_shard
from mllm_npu.errors import DataError

_TEXTS = ("json", "txt")


def convert_folder(
    folder: str | Path,
    out: str | Path,
    *,
    rows_per_shard: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the pictures of a folder, and the texts beside them, as shards with an index each.

    Files whose names are equal up to the first dot are one row: ``cat.jpg`` with ``cat.txt`` is a
    captioned picture, ``7.source.png`` with ``7.target.png`` and ``7.json`` an edit. Files of other
    kinds, and rows without a picture, are left out.

    Args:
        folder: searched with all its subfolders.
        out: gets ``00000.tar``, ``00001.tar``, ...; must not hold shards yet.
        rows_per_shard: rows of one shard.
        progress: called with the rows written and their number.

    Returns:
        How many rows were written.

    Raises:
        DataError: no picture is there, ``out`` holds shards, or a file cannot be read.
    """
    root, target = Path(folder), Path(out)
    groups = _group(root)
    if not groups:
        raise DataError(
            f"Pictures were asked for in {root}, there are none (png, jpg, jpeg, webp, ...). "
            "Check the path."
        )
    if rows_per_shard < 1:
        raise DataError(f"rows_per_shard={rows_per_shard} was asked for. Give at least 1.")
    if any(target.glob("*.tar")):
        raise DataError(f"{target} holds shards already. Give an empty folder.")
    target.mkdir(parents=True, exist_ok=True)
    written = 0
    for start in range(0, len(groups), rows_per_shard):
        path = target / f"{start // rows_per_shard:05d}.tar"
        written += write_shard(path, _rows(root, groups[start : start + rows_per_shard]))
        find_index(path)
        if progress is not None:
            progress(written, len(groups))
    return written


def _group(root: Path) -> list[tuple[str, list[Path]]]:
    """Files by row, in the order of their names."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        parts = split_name(path.relative_to(root).as_posix())
        if parts is None or not path.is_file():
            continue
        key, extension = parts
        if is_picture_name(extension) or extension.rpartition(".")[2] in _TEXTS:
            groups.setdefault(key, []).append(path)
    return [
        (key, paths)
        for key, paths in groups.items()
        if any(is_picture_name(path.name) for path in paths)
    ]


def _rows(root: Path, groups: Sequence[tuple[str, list[Path]]]) -> Iterator[Row]:
    for key, paths in groups:
        members: dict[str, bytes] = {}
        for path in paths:
            parts = split_name(path.relative_to(root).as_posix())
            try:
                members[parts[1] if parts else path.suffix] = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        yield Row(key=key, members=members)
