"""Storage: shards as local files or behind fsspec URLs, found by pattern and read by span."""

from __future__ import annotations

import glob
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bracex

from mllm_npu.errors import DataError

_READ_AHEAD = 4 * 2**20
"""Bytes fetched at least by a walk over a remote shard; one sample is fetched exactly."""
_MOST_NAMES = 1_000_000
_MARKS = (
    *("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime"),
    *("Content-MD5", "md5", "Digest", "created"),
)
"""What file systems call that which changes with a file."""


def find_shards(patterns: str | Sequence[str]) -> list[str]:
    """Every shard that patterns name, sorted, each once.

    Args:
        patterns: local paths or fsspec URLs (``s3://``, ``https://``, ``memory://``), each with
            wildcards (``*.tar``) and brace lists (``train-{0000..0127}.tar``, ``{a,b}.tar``).

    Raises:
        DataError: if a pattern, or one name of a brace list, matches nothing: a shard that is
            missing must not go unnoticed.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    names = [name for pattern in given for name in _expand_braces(pattern)]
    found = {name: _match(name) if name else [] for name in names}
    missing = [name for name, paths in found.items() if not paths]
    if missing or not names:
        among = f" ({len(missing)} of {len(names)} names)" if len(names) > 1 else ""
        raise DataError(
            f"Shards {(missing or given or [''])[0]!r} were asked for, no file matches{among}. "
            "Make the data first, or correct the path."
        )
    return sorted({path for paths in found.values() for path in paths})


def is_remote(path: str) -> bool:
    """Whether a path is a URL that fsspec opens."""
    return "://" in path


def open_shard(path: str | Path) -> ShardFile:
    """A shard ready to be read; nothing is opened yet."""
    text = str(path)
    return RemoteShard(path=text) if is_remote(text) else LocalShard(path=text)


class ShardFile(ABC):
    """Bytes of one shard.

    Attributes:
        path: local path or URL.
    """

    path: str

    @abstractmethod
    def read(self, offset: int, count: int) -> bytes:
        """Bytes from ``offset`` on; fewer where the file ends.

        Raises:
            DataError: if the file is gone or cannot be read.
        """

    @abstractmethod
    def signature(self) -> dict[str, str]:
        """What tells one state of the file from another; ``size`` in bytes is among it.

        Raises:
            DataError: if there is no such file.
        """

    @abstractmethod
    def walk(self, offset: int, count: int) -> bytes:
        """As ``read``, for reading on and on: fetches ahead where that saves requests."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back; the next read opens it again."""


class LocalShard(ShardFile):
    """A file of this machine; may be shared by forked processes.

    Args:
        path: of the file.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path
        self._descriptor = -1

    def read(self, offset: int, count: int) -> bytes:
        """One ``pread``, which moves no position that another process might share."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY)
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise DataError(
                f"Shard {self.path} cannot be read: {error.strerror}. Put it back, then resume."
            ) from error

    def walk(self, offset: int, count: int) -> bytes:
        """As ``read``; the system reads ahead."""
        return self.read(offset, count)

    def signature(self) -> dict[str, str]:
        """Size and time of the last change."""
        try:
            state = os.stat(self.path)
        except OSError as error:
            raise DataError(
                f"Shard {self.path} cannot be read: {error.strerror}. Put it back, then resume."
            ) from error
        if not stat.S_ISREG(state.st_mode):
            raise DataError(
                f"Shard {self.path} was asked for and is no file. Give a tar, or a glob."
            )
        return {"size": str(state.st_size), "modified": str(state.st_mtime_ns)}

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_descriptor": -1}


class RemoteShard(ShardFile):
    """A file behind a URL, read by ranges.

    Args:
        path: any URL that fsspec knows.

    Raises:
        DataError: on first use, if the library for its scheme is not installed.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path
        self._files: Any = None
        self._name = ""
        self._size = -1
        self._marks: dict[str, str] = {}
        self._process = -1
        self._ahead: tuple[int, bytes] = (0, b"")

    def read(self, offset: int, count: int) -> bytes:
        """One range request; a server that sends the whole file instead is noticed."""
        files = self._open()
        end = min(offset + count, self._size)
        if offset >= end:
            return b""
        try:
            data = bytes(files.cat_file(self._name, start=offset, end=end))
        except Exception as error:  # libraries of servers raise whatever they like
            raise DataError(
                f"Shard {self.path} cannot be read: {_say(error)}. "
                "See that it is there and its server is up, then resume."
            ) from error
        if len(data) > end - offset:
            raise DataError(
                f"Shard {self.path}: {end - offset} bytes were asked for, {len(data)} came. Its "
                "server knows no ranges. Use one that does, or copy the shard here."
            )
        return data

    def walk(self, offset: int, count: int) -> bytes:
        """From what was fetched last, if it lies there."""
        start, held = self._ahead
        if not start <= offset <= offset + count <= start + len(held):
            self._ahead = start, held = offset, self.read(offset, max(count, _READ_AHEAD))
        return held[offset - start : offset - start + count]

    def signature(self) -> dict[str, str]:
        """Size, and whatever the server tells of the file's state."""
        self._forget()
        self._open()
        return {"size": str(self._size), **self._marks}

    def close(self) -> None:
        """Forget the connection and what was fetched."""
        self._forget()

    def _open(self) -> Any:
        # Connections do not outlive a fork.
        if self._files is None or self._process != os.getpid():
            files, self._name = connect(self.path)
            try:
                state = files.info(self._name)
            except Exception as error:  # libraries of servers raise whatever they like
                raise DataError(f"Shard {self.path} cannot be read: {_say(error)}.") from error
            if state.get("size") is None:
                raise DataError(
                    f"Shard {self.path}: its server does not tell its size, so no part of it can "
                    "be addressed. Use a server of static files, or copy the shard here."
                )
            self._size = int(state["size"])
            self._marks = {mark: str(state[mark]) for mark in _MARKS if state.get(mark)}
            self._files, self._process = files, os.getpid()
        return self._files

    def _forget(self) -> None:
        self._files, self._ahead = None, (0, b"")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None, "_ahead": (0, b"")}


def connect(url: str) -> tuple[Any, str]:
    """The file system behind a URL, and what the file is called there.

    Raises:
        DataError: if nothing opens its scheme.
    """
    import fsspec  # noqa: PLC0415 - slow, and only for URLs

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"Shard {url} was asked for: {error}. Install what opens its scheme "
            '(pip install "mllm-npu[data]" brings http), or copy the shard here.'
        ) from error


def _expand_braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        return bracex.expand(pattern, limit=_MOST_NAMES)
    except bracex.ExpansionLimitException as error:
        raise DataError(
            f"Shards {pattern!r} are more than {_MOST_NAMES} names. Correct the brace list."
        ) from error


def _match(name: str) -> list[str]:
    """What one name without braces matches."""
    if not is_remote(name):
        return [name] if Path(name).exists() else glob.glob(name)
    files, path = connect(name)
    try:
        if glob.has_magic(path):
            return [_to_url(files, found) for found in files.glob(path)]
        return [_to_url(files, path)] * files.exists(path)
    except Exception as error:  # libraries of servers raise whatever they like
        raise DataError(f"Shards {name!r} cannot be listed: {_say(error)}.") from error


def _to_url(files: Any, path: str) -> str:
    """One spelling for one file; fsspec writes a slash too many in memory."""
    return str(files.unstrip_protocol(path)).replace("memory:///", "memory://")


def _say(error: Exception) -> str:
    """What went wrong, also where a library says nothing but its name."""
    return str(error) or type(error).__name__
