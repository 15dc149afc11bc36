"""Shards are found by pattern, read by span, and have files that belong to them."""

import errno
import os
import pickle
from pathlib import Path

import fsspec
import pytest

from mllm_npu.data import storage
from mllm_npu.data.storage import (
    find_companion,
    find_shards,
    is_remote,
    open_shard,
    write_companion,
)
from mllm_npu.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test writes to the user's own cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with shards; the working directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("0000.tar", "0001.tar", "0002.tar", "a.tar", "b.tar", "note.txt"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def memory(request):
    """A folder in memory of the test's own; gone behind it."""
    files = fsspec.filesystem("memory")
    name = f"/storage-{request.node.name}"
    yield lambda path, data: files.pipe_file(f"{name}/{path}", data) or f"memory:/{name}/{path}"
    files.rm(name, recursive=True)


@pytest.fixture(params=[errno.EACCES, errno.EROFS], ids=["folder", "mount"])
def read_only(request, folder, monkeypatch):
    """The folder as one that cannot be written; tests run as root, who may nearly everything.

    On a mount that is read-only even removing a file that is not there is refused.
    """

    def guard(method):
        real = getattr(Path, method)

        def guarded(self, *arguments, **options):
            touched = [self, *(one for one in arguments if isinstance(one, Path))]
            if any(path.absolute().parent == folder for path in touched):
                raise OSError(request.param, os.strerror(request.param), str(self))
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, method, guarded)

    for method in ("write_bytes", "replace", *["unlink"] * (request.param == errno.EROFS)):
        guard(method)
    return folder


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("*.tar", ["0000.tar", "0001.tar", "0002.tar", "a.tar", "b.tar"]),
        ("000?.tar", ["0000.tar", "0001.tar", "0002.tar"]),
        ("[ab].tar", ["a.tar", "b.tar"]),
        ("{0000..0002}.tar", ["0000.tar", "0001.tar", "0002.tar"]),
        ("{b,a}.tar", ["a.tar", "b.tar"]),
        ("{0000..0001,a}.tar", None),
        ("{a,000*}.tar", ["0000.tar", "0001.tar", "0002.tar", "a.tar"]),
        (["b.tar", "a.tar", "*a.tar", "{a,b}.tar"], ["a.tar", "b.tar"]),
        (("a.tar",), ["a.tar"]),
    ],
)
def test_patterns_are_found_sorted_and_once(folder, patterns, names):
    if names is None:
        with pytest.raises(DataError, match="no file matches"):
            find_shards(patterns)
        return
    assert find_shards(patterns) == names
    whole = [patterns] if isinstance(patterns, str) else patterns
    assert find_shards([f"{folder}/{one}" for one in whole]) == [f"{folder}/{n}" for n in names]


def test_a_gap_in_a_brace_list_is_told_and_a_glob_knows_none(folder):
    (folder / "0001.tar").unlink()
    with pytest.raises(DataError, match=r"'0001\.tar' .* \(1 of 4 names\)") as refused:
        find_shards(["{0000..0002}.tar", "a.tar"])
    assert "correct the path" in str(refused.value)
    assert find_shards("000*.tar") == ["0000.tar", "0002.tar"]


@pytest.mark.parametrize("patterns", ["nothing*.tar", ["a.tar", "gone.tar"], [], "", ["", "a.tar"]])
def test_what_matches_nothing_is_refused(folder, patterns):
    with pytest.raises(DataError, match=r"were asked for, no file matches"):
        find_shards(patterns)


def test_a_brace_list_without_end_is_refused():
    with pytest.raises(DataError, match=r"more than 1000000 names\. Correct"):
        find_shards("{0..999999999}.tar")


@pytest.mark.parametrize("name", ["odd[1].tar", "odd [ab] (2).tar", "odd{1}.tar", "ö七.tar"])
def test_a_name_that_looks_like_a_pattern_is_taken_as_it_is(folder, name):
    (folder / name).write_bytes(b"x")
    assert find_shards(name) == [name]


def test_urls_and_paths_are_told_apart():
    assert [is_remote(path) for path in ("s3://a/b.tar", "memory://x", "/a/b.tar", "a:b.tar")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_local_shard_is_read_by_span(folder):
    shard = open_shard(folder / "a.tar")
    assert shard.path == str(folder / "a.tar")
    assert (shard.read(0, 3), shard.read(2, 100), shard.read(50, 4)) == (b"a.t", b"tar", b"")
    assert shard.walk(1, 2) == b".t"
    shard.close()
    shard.close()
    assert shard.read(0, 1) == b"a"


def test_a_local_shard_that_is_gone_or_no_file_is_named(folder):
    with pytest.raises(DataError, match=r"gone\.tar cannot be read: No such file"):
        open_shard("gone.tar").read(0, 1)
    with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
        open_shard("gone.tar").signature()
    with pytest.raises(DataError, match="is no file"):
        open_shard(folder).signature()


def test_the_signature_of_a_local_shard_tells_its_states_apart(folder):
    before = open_shard("a.tar").signature()
    assert before == open_shard("a.tar").signature()
    assert before["size"] == "5"
    os.utime("a.tar", ns=(1, 1))
    touched = open_shard("a.tar").signature()
    Path("a.tar").write_bytes(b"longer than before")
    os.utime("a.tar", ns=(1, 1))
    longer = open_shard("a.tar").signature()
    assert before != touched != longer


def test_a_copy_in_another_process_opens_the_file_anew(folder):
    shard = open_shard("a.tar")
    shard.read(0, 1)
    copy = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert copy.read(0, 5) == b"a.tar"
    assert copy.signature() == shard.signature()


def test_no_descriptor_is_left_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    shards = [open_shard("a.tar") for _ in range(20)]
    assert {shard.read(0, 1) for shard in shards} == {b"a"}
    shards.clear()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_shards_behind_urls_are_found_by_the_same_patterns(memory):
    urls = [memory(f"{name}.tar", b"x") for name in ("0000", "0001", "a")]
    folder = urls[0].rsplit("/", 1)[0]
    assert find_shards(f"{folder}/{{0000..0001}}.tar") == urls[:2]
    assert find_shards(urls[::-1]) == urls
    found = find_shards(f"{folder}/*.tar")
    assert [name.rsplit("/", 1)[-1] for name in found] == ["0000.tar", "0001.tar", "a.tar"]
    assert [open_shard(name).read(0, 9) for name in found] == [b"x"] * 3
    with pytest.raises(DataError, match=r"0002\.tar' .* \(1 of 3 names\)"):
        find_shards(f"{folder}/{{0000..0002}}.tar")
    with pytest.raises(DataError, match="no file matches"):
        find_shards(f"{folder}/z*.tar")


def test_a_url_that_two_patterns_name_is_found_once(memory):
    url = memory("a.tar", b"x")
    assert len(find_shards([url, url.replace("a.tar", "*.tar")])) == 1


def test_a_shard_behind_a_url_is_read_by_span(memory):
    url = memory("a.tar", bytes(range(100)))
    shard = open_shard(url)
    assert shard.path == url
    assert shard.read(3, 4) == bytes([3, 4, 5, 6])
    assert shard.read(98, 10) == bytes([98, 99])
    assert shard.read(100, 10) == shard.read(1000, 1) == b""
    assert shard.signature()["size"] == "100"
    copy = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert copy.read(0, 2) == shard.read(0, 2) == b"\0\1"


def test_a_walk_over_a_url_fetches_ahead_and_gives_the_same(memory, monkeypatch):
    monkeypatch.setattr(storage, "_READ_AHEAD", 16)
    data = bytes(range(100))
    shard, spans = open_shard(memory("a.tar", data)), []
    read = shard.read
    monkeypatch.setattr(shard, "read", lambda at, n: spans.append((at, n)) or read(at, n))
    for at in range(0, 100, 4):
        assert shard.walk(at, 4) == data[at : at + 4]
    assert len(spans) == 7
    assert shard.walk(10, 40) == data[10:50]
    assert shard.walk(2, 3) == data[2:5]
    assert shard.walk(96, 20) == data[96:]
    assert shard.walk(200, 4) == b""


def test_the_signature_behind_a_url_tells_states_apart(memory):
    url = memory("a.tar", b"one")
    before = open_shard(url).signature()
    assert before == open_shard(url).signature()
    memory("a.tar", b"two")
    assert open_shard(url).signature() != before


def test_a_url_that_is_gone_is_named(memory):
    url = memory("a.tar", b"x").replace("a.tar", "gone.tar")
    for ask in (lambda shard: shard.read(0, 1), lambda shard: shard.signature()):
        with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
            ask(open_shard(url))


def test_a_scheme_that_nothing_opens_says_what_to_install():
    with pytest.raises(DataError, match=r"nosuch.*pip install") as refused:
        find_shards("nosuch://somewhere/a.tar")
    assert "copy the shard here" in str(refused.value)
    with pytest.raises(DataError, match="pip install"):
        open_shard("nosuch://somewhere/a.tar").read(0, 1)


def test_a_companion_lies_beside_its_shard(folder, cache):
    assert find_companion("a.tar", ".index") is None
    assert write_companion("a.tar", ".index", b"first") == Path("a.tar.index")
    assert write_companion(f"{folder}/a.tar", ".index", b"second") == folder / "a.tar.index"
    assert find_companion("a.tar", ".index").read_bytes() == b"second"
    assert find_companion("a.tar", ".other") is find_companion("b.tar", ".index") is None
    assert not cache.exists()
    assert not list(folder.glob("*.partial"))


def test_where_the_folder_is_read_only_the_cache_takes_it(read_only, cache):
    path = write_companion("a.tar", ".index", b"one")
    assert path.is_relative_to(cache / "mllm-npu")
    assert path.name == "a.tar.index"
    assert find_companion("a.tar", ".index").read_bytes() == b"one"
    # The same shard by another way, and another shard of the same name.
    assert find_companion(str(read_only / "a.tar"), ".index") == path
    assert find_companion("elsewhere/a.tar", ".index") is None
    assert write_companion(str(read_only / "a.tar"), ".index", b"two") == path
    assert [file.name for file in cache.rglob("*") if file.is_file()] == ["a.tar.index"]


def test_a_companion_in_a_read_only_folder_gives_way_to_a_newer_one(read_only, cache):
    stale = Path("a.tar.index")
    with stale.open("wb") as file:
        file.write(b"of an older state of the shard")
    write_companion("a.tar", ".index", b"new")
    assert find_companion("a.tar", ".index").read_bytes() == b"new"


def test_where_neither_can_be_written_both_are_named(read_only, cache):
    cache.write_text("a file where a folder should be")
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


def test_a_companion_of_a_url_lies_in_the_cache(memory, cache):
    url = memory("a.tar", b"x")
    assert find_companion(url, ".index") is None
    path = write_companion(url, ".index", b"one")
    assert path.is_relative_to(cache)
    assert find_companion(url, ".index") == path
    other = memory("deeper/a.tar", b"x")
    assert find_companion(other, ".index") is None
    assert write_companion(other, ".index", b"two") != path
    assert path.read_bytes() == b"one"


def test_a_companion_beside_a_url_is_fetched_once(memory, cache):
    url = memory("a.tar", b"x")
    memory("a.tar.index", b"theirs")
    path = find_companion(url, ".index")
    assert path.is_relative_to(cache)
    assert path.read_bytes() == b"theirs"
    memory("a.tar.index", b"changed since")
    assert find_companion(url, ".index").read_bytes() == b"theirs"
    write_companion(url, ".index", b"ours")
    assert find_companion(url, ".index").read_bytes() == b"ours"
