"""Shards are found by pattern, read by span."""

import os
import pickle
from pathlib import Path

import pytest

from mllm_npu.data import storage
from mllm_npu.data.storage import find_shards, is_remote, open_shard
from mllm_npu.errors import DataError


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
def test_patterns_are_found_sorted_and_once(shard_folder, patterns, names):
    if names is None:
        with pytest.raises(DataError, match="no file matches"):
            find_shards(patterns)
        return
    assert find_shards(patterns) == names
    whole = [patterns] if isinstance(patterns, str) else patterns
    assert find_shards([f"{shard_folder}/{one}" for one in whole]) == [
        f"{shard_folder}/{n}" for n in names
    ]


def test_a_gap_in_a_brace_list_is_told_and_a_glob_knows_none(shard_folder):
    (shard_folder / "0001.tar").unlink()
    with pytest.raises(DataError, match=r"'0001\.tar' .* \(1 of 4 names\)") as refused:
        find_shards(["{0000..0002}.tar", "a.tar"])
    assert "correct the path" in str(refused.value)
    assert find_shards("000*.tar") == ["0000.tar", "0002.tar"]


@pytest.mark.parametrize("patterns", ["nothing*.tar", ["a.tar", "gone.tar"], [], "", ["", "a.tar"]])
def test_what_matches_nothing_is_refused(shard_folder, patterns):
    with pytest.raises(DataError, match=r"were asked for, no file matches"):
        find_shards(patterns)


def test_a_brace_list_without_end_is_refused():
    with pytest.raises(DataError, match=r"more than 1000000 names\. Correct"):
        find_shards("{0..999999999}.tar")


@pytest.mark.parametrize("name", ["odd[1].tar", "odd [ab] (2).tar", "odd{1}.tar", "ö七.tar"])
def test_a_name_that_looks_like_a_pattern_is_taken_as_it_is(shard_folder, name):
    (shard_folder / name).write_bytes(b"x")
    assert find_shards(name) == [name]


def test_urls_and_paths_are_told_apart():
    assert [is_remote(path) for path in ("s3://a/b.tar", "memory://x", "/a/b.tar", "a:b.tar")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_local_shard_is_read_by_span(shard_folder):
    shard = open_shard(shard_folder / "a.tar")
    assert shard.path == str(shard_folder / "a.tar")
    assert (shard.read(0, 3), shard.read(2, 100), shard.read(50, 4)) == (b"a.t", b"tar", b"")
    assert shard.walk(1, 2) == b".t"
    shard.close()
    shard.close()
    assert shard.read(0, 1) == b"a"


def test_a_local_shard_that_is_gone_or_no_file_is_named(shard_folder):
    with pytest.raises(DataError, match=r"gone\.tar cannot be read: No such file"):
        open_shard("gone.tar").read(0, 1)
    with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
        open_shard("gone.tar").signature()
    with pytest.raises(DataError, match="is no file"):
        open_shard(shard_folder).signature()


def test_the_signature_of_a_local_shard_tells_its_states_apart(shard_folder):
    before = open_shard("a.tar").signature()
    assert before == open_shard("a.tar").signature()
    assert before["size"] == "5"
    os.utime("a.tar", ns=(1, 1))
    touched = open_shard("a.tar").signature()
    Path("a.tar").write_bytes(b"longer than before")
    os.utime("a.tar", ns=(1, 1))
    longer = open_shard("a.tar").signature()
    assert before != touched != longer


def test_a_copy_in_another_process_opens_the_file_anew(shard_folder):
    shard = open_shard("a.tar")
    shard.read(0, 1)
    copy = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert copy.read(0, 5) == b"a.tar"
    assert copy.signature() == shard.signature()


def test_no_descriptor_is_left_open(shard_folder):
    before = len(os.listdir("/proc/self/fd"))
    shards = [open_shard("a.tar") for _ in range(20)]
    assert {shard.read(0, 1) for shard in shards} == {b"a"}
    shards.clear()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_shards_behind_urls_are_found_by_the_same_patterns(memory_file):
    urls = [memory_file(f"{name}.tar", b"x") for name in ("0000", "0001", "a")]
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


def test_a_url_that_two_patterns_name_is_found_once(memory_file):
    url = memory_file("a.tar", b"x")
    assert len(find_shards([url, url.replace("a.tar", "*.tar")])) == 1


def test_a_shard_behind_a_url_is_read_by_span(memory_file):
    url = memory_file("a.tar", bytes(range(100)))
    shard = open_shard(url)
    assert shard.path == url
    assert shard.read(3, 4) == bytes([3, 4, 5, 6])
    assert shard.read(98, 10) == bytes([98, 99])
    assert shard.read(100, 10) == shard.read(1000, 1) == b""
    assert shard.signature()["size"] == "100"
    copy = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert copy.read(0, 2) == shard.read(0, 2) == b"\0\1"


def test_a_walk_over_a_url_fetches_ahead_and_gives_the_same(memory_file, monkeypatch):
    monkeypatch.setattr(storage, "_READ_AHEAD", 16)
    data = bytes(range(100))
    shard, spans = open_shard(memory_file("a.tar", data)), []
    read = shard.read
    monkeypatch.setattr(shard, "read", lambda at, n: spans.append((at, n)) or read(at, n))
    for at in range(0, 100, 4):
        assert shard.walk(at, 4) == data[at : at + 4]
    assert len(spans) == 7
    assert shard.walk(10, 40) == data[10:50]
    assert shard.walk(2, 3) == data[2:5]
    assert shard.walk(96, 20) == data[96:]
    assert shard.walk(200, 4) == b""


def test_the_signature_behind_a_url_tells_states_apart(memory_file):
    url = memory_file("a.tar", b"one")
    before = open_shard(url).signature()
    assert before == open_shard(url).signature()
    memory_file("a.tar", b"two")
    assert open_shard(url).signature() != before


def test_a_url_that_is_gone_is_named(memory_file):
    url = memory_file("a.tar", b"x").replace("a.tar", "gone.tar")
    for ask in (lambda shard: shard.read(0, 1), lambda shard: shard.signature()):
        with pytest.raises(DataError, match=r"gone\.tar cannot be read"):
            ask(open_shard(url))


def test_a_scheme_that_nothing_opens_says_what_to_install():
    with pytest.raises(DataError, match=r"nosuch.*pip install") as refused:
        find_shards("nosuch://somewhere/a.tar")
    assert "copy the shard here" in str(refused.value)
    with pytest.raises(DataError, match="pip install"):
        open_shard("nosuch://somewhere/a.tar").read(0, 1)
