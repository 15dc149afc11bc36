"""Companions: small files that belong to a shard, beside it or in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from mllm_npu.data.storage import connect, is_remote
from mllm_npu.errors import DataError


def find_companion(shard: str, suffix: str) -> Path | None:
    """The local file that belongs to a shard under a suffix, or None.

    It lies beside a local shard. Where that folder cannot be written, or the shard is remote, it
    lies in the cache; one that lies beside a remote shard is fetched there first.
    """
    there = [path for path in _companion_paths(shard, suffix) if path.is_file()]
    if there:
        # An old one may lie where nothing can be written, and the one that replaced it elsewhere.
        return max(there, key=lambda path: path.stat().st_mtime_ns)
    return _fetch_companion(shard, suffix) if is_remote(shard) else None


def write_companion(shard: str, suffix: str, data: bytes) -> Path:
    """Write what belongs to a shard, under a temporary name first, where it can be written.

    Raises:
        DataError: if neither the shard's folder nor the cache can be written.
    """
    failure: OSError | None = None
    paths = _companion_paths(shard, suffix)
    for path in paths:
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            failure = error
            with contextlib.suppress(OSError):
                partial.unlink()
        else:
            return path
    raise DataError(
        f"{paths[0]} cannot be written, nor can {paths[-1]}: {failure}. "
        "Make one of their folders writable, with room on its disk."
    )


def _companion_paths(shard: str, suffix: str) -> list[Path]:
    name = shard.rsplit("/", 1)[-1] + suffix
    where = shard if is_remote(shard) else str(Path(shard).absolute())
    digest = hashlib.sha256(where.encode()).hexdigest()[:16]
    cached = _cache_folder() / digest / name
    return [cached] if is_remote(shard) else [Path(f"{shard}{suffix}"), cached]


def _cache_folder() -> Path:
    """Where this user's programs keep what can be made again (XDG base directories)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mllm-npu" / "shards"


def _fetch_companion(shard: str, suffix: str) -> Path | None:
    files, name = connect(shard)
    try:
        data = bytes(files.cat_file(name + suffix))
    except Exception:  # noqa: BLE001 - a server refuses what it does not have in its own way
        return None
    return write_companion(shard, suffix, data)
