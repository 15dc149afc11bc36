"""Folder format: loose pictures and texts, named as the members of a webdataset tar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.loose_row import build_row, is_picture_file
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat, refuse
from mllm_npu.data.convert.tar_samples import split_loose_name
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample

_TEXTS = ("json", "txt", "cls")


class FolderFormat(SourceFormat):
    """Reads files whose names are equal up to the first dot as one row.

    ``cat.jpg`` with ``cat.txt`` is a captioned picture, ``7.source.png`` with ``7.target.png`` and
    ``7.json`` an edit, ``dog.png`` alone a picture.
    """

    name = "folder"
    aliases = ("pictures", "images")
    summary = "folder of pictures, each with a .txt or .json of the same name or alone"

    def recognises(self, listing: Listing) -> bool:
        """Whether there is a picture."""
        return any(_is_picture(name) for name in listing.names)

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """So many rows together, in the order of their names."""
        rows = list(_group(listing.names).values())
        parts = []
        for start in range(0, len(rows), options.rows_per_part):
            chosen = rows[start : start + options.rows_per_part]
            names = tuple(name for row in chosen for name in row)
            parts.append(
                Part(
                    path=str(listing.root),
                    first=start,
                    num_rows=len(chosen),
                    num_bytes=sum((listing.root / name).stat().st_size for name in names),
                    names=names,
                )
            )
        return parts

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each name; a file of another kind beside it is refused alone."""
        for key, names in _group(part.names).items():
            foreign = [name for name in names if not _is_of_a_row(name)]
            for name in foreign:
                yield Refusal(reason="file of another kind", at=name)
            if len(foreign) == len(names):
                continue
            try:
                contents = [_read(Path(part.path), name) for name in names if name not in foreign]
                yield build_row(key, contents, options.class_names)
            except SkipSample as error:
                yield refuse(error, ", ".join(names))


def _group(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by the key of their row."""
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = split_loose_name(name)
        groups.setdefault(parts[0] if parts else name, []).append(name)
    return groups


def _is_picture(name: str) -> bool:
    parts = split_loose_name(name)
    return parts is not None and is_picture_file(parts[1])


def _is_of_a_row(name: str) -> bool:
    parts = split_loose_name(name)
    return parts is not None and (_is_picture(name) or parts[1].rpartition(".")[2] in _TEXTS)


def _read(root: Path, name: str) -> tuple[str, bytes]:
    parts = split_loose_name(name)
    try:
        return parts[1] if parts else "", (root / name).read_bytes()
    except OSError as error:
        raise SkipSample(f"file cannot be read: {error.strerror}") from error
