"""Small files that belong to a shard lie beside it, or in the cache where that is not to be."""

import errno
import os
from pathlib import Path

import pytest

from mllm_npu.data.companions import find_companion, write_companion
from mllm_npu.errors import DataError


@pytest.fixture(params=[errno.EACCES, errno.EROFS], ids=["folder", "mount"])
def read_only(request, shard_folder, monkeypatch):
    """The folder as one that cannot be written; tests run as root, who may nearly everything.

    On a mount that is read-only even removing a file that is not there is refused.
    """

    def guard(method):
        real = getattr(Path, method)

        def guarded(self, *arguments, **options):
            touched = [self, *(one for one in arguments if isinstance(one, Path))]
            if any(path.absolute().parent == shard_folder for path in touched):
                raise OSError(request.param, os.strerror(request.param), str(self))
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, method, guarded)

    for method in ("write_bytes", "replace", *["unlink"] * (request.param == errno.EROFS)):
        guard(method)
    return shard_folder


def test_a_companion_lies_beside_its_shard(shard_folder, shard_cache):
    assert find_companion("a.tar", ".index") is None
    assert write_companion("a.tar", ".index", b"first") == Path("a.tar.index")
    assert (
        write_companion(f"{shard_folder}/a.tar", ".index", b"second")
        == shard_folder / "a.tar.index"
    )
    assert find_companion("a.tar", ".index").read_bytes() == b"second"
    assert find_companion("a.tar", ".other") is find_companion("b.tar", ".index") is None
    assert not shard_cache.exists()
    assert not list(shard_folder.glob("*.partial"))


def test_where_the_folder_is_read_only_the_cache_takes_it(read_only, shard_cache):
    path = write_companion("a.tar", ".index", b"one")
    assert path.is_relative_to(shard_cache / "mllm-npu")
    assert path.name == "a.tar.index"
    assert find_companion("a.tar", ".index").read_bytes() == b"one"
    # The same shard by another way, and another shard of the same name.
    assert find_companion(str(read_only / "a.tar"), ".index") == path
    assert find_companion("elsewhere/a.tar", ".index") is None
    assert write_companion(str(read_only / "a.tar"), ".index", b"two") == path
    assert [file.name for file in shard_cache.rglob("*") if file.is_file()] == ["a.tar.index"]


def test_a_companion_in_a_read_only_folder_gives_way_to_a_newer_one(read_only, shard_cache):
    stale = Path("a.tar.index")
    with stale.open("wb") as file:
        file.write(b"of an older state of the shard")
    write_companion("a.tar", ".index", b"new")
    assert find_companion("a.tar", ".index").read_bytes() == b"new"


def test_where_neither_can_be_written_both_are_named(read_only, shard_cache):
    shard_cache.write_text("a file where a folder should be")
    with pytest.raises(
        DataError, match=r"a\.tar\.index cannot be written, nor can .*cache"
    ) as told:
        write_companion("a.tar", ".index", b"one")
    assert "Make one of their folders writable" in str(told.value)


def test_without_a_setting_the_cache_lies_in_the_home_folder(read_only, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write_companion("a.tar", ".index", b"one")
    assert path.is_relative_to(tmp_path / "home" / ".cache" / "mllm-npu")


def test_a_companion_of_a_url_lies_in_the_cache(memory_file, shard_cache):
    url = memory_file("a.tar", b"x")
    assert find_companion(url, ".index") is None
    path = write_companion(url, ".index", b"one")
    assert path.is_relative_to(shard_cache)
    assert find_companion(url, ".index") == path
    other = memory_file("deeper/a.tar", b"x")
    assert find_companion(other, ".index") is None
    assert write_companion(other, ".index", b"two") != path
    assert path.read_bytes() == b"one"


def test_a_companion_beside_a_url_is_fetched_once(memory_file, shard_cache):
    url = memory_file("a.tar", b"x")
    memory_file("a.tar.index", b"theirs")
    path = find_companion(url, ".index")
    assert path.is_relative_to(shard_cache)
    assert path.read_bytes() == b"theirs"
    memory_file("a.tar.index", b"changed since")
    assert find_companion(url, ".index").read_bytes() == b"theirs"
    write_companion(url, ".index", b"ours")
    assert find_companion(url, ".index").read_bytes() == b"ours"
