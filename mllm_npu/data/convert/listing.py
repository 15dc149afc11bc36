"""Listing: the files of a source, found once, in the order of their names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Files below a folder, or one file alone.

    Args:
        root: the folder.
        names: paths below it with ``/``, sorted.
    """

    root: Path
    names: tuple[str, ...]

    def paths(self, *suffixes: str) -> list[Path]:
        """Files whose names end so, without regard to case."""
        return [self.root / name for name in self.names if name.lower().endswith(suffixes)]

    def describe(self) -> str:
        """What there is, by ending: ``316 .jpeg, 1 .jsonl``."""
        counts: dict[str, int] = {}
        for name in self.names:
            ending = Path(name).suffix.lower() or "without ending"
            counts[ending] = counts.get(ending, 0) + 1
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6]
        return ", ".join(f"{count} {ending}" for ending, count in most) or "no files"


def list_files(source: str | Path) -> Listing:
    """List a file or a folder with all its subfolders; what begins with a dot is passed over.

    Raises:
        DataError: if there is no such file or folder.
    """
    path = Path(source).absolute()
    if path.is_file():
        return Listing(root=path.parent, names=(path.name,))
    if not path.is_dir():
        raise DataError(f"{path} was to be converted, there is no such file. Check the path.")
    names = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        above = Path(folder).relative_to(path)
        names += [(above / name).as_posix() for name in files if not name.startswith(".")]
    return Listing(root=path, names=tuple(sorted(names)))
