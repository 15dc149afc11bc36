"""Plain values come out of a pickle; anything that could run code or eat memory is refused."""

import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.convert.plain_pickle import MAX_DEPTH, load_plain
from mllm_npu.errors import SkipSample

DOCUMENT = {
    "images": [None, b"\xff\xd8", "aGVsbG8="],
    "texts": ["a", None, "ü 字"],
    "numbers": [1, -(2**70), 0.5, True, False, None],
    "pair": (1, (2,), (3, 4, 5, 6)),
}


class Caller:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stateful:
    def __init__(self):
        self.harmless = 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol_come_out(protocol):
    # Bytes are an object in the old protocols, and refused there.
    value = DOCUMENT if protocol >= 3 else {**DOCUMENT, "images": [None, "aGVsbG8="]}
    assert load_plain(pickle.dumps(value, protocol=protocol)) == value


def test_a_pickle_of_python_2_comes_out():
    assert load_plain(b"\x80\x02}q\x00U\x05textsq\x01]q\x02U\x03catq\x03as.") == {"texts": ["cat"]}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_call_is_refused_by_name_and_never_made(protocol, tmp_path):
    made = tmp_path / "made"
    data = pickle.dumps({"texts": Caller(os.system, f"touch {made}")}, protocol=protocol)
    with pytest.raises(SkipSample, match=r"pickle names a global: (posix|nt)\.system"):
        load_plain(data)
    assert not made.exists()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Caller(eval, "1"), r"builtins\.eval"),
        (Stateful(), "global"),
        (OrderedDict(a=1), r"collections\.OrderedDict"),
        (np.zeros(3), "numpy"),
        (np.float64(1.0), "numpy"),
        (Image.new("RGB", (2, 2)), r"PIL\.Image"),
        ({1, 2}, "EMPTY_SET"),
        (frozenset({1}), "FROZENSET"),
        (bytearray(b"a"), "BYTEARRAY8|builtins"),
        (1j, r"builtins\.complex"),
    ],
)
def test_objects_are_refused_and_named(value, named):
    with pytest.raises(SkipSample, match=named):
        load_plain(pickle.dumps(value))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"os\.system"),
        (b"(S'true'\nios\nsystem\n.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"os\.system"),
        (b"Pelsewhere\n.", "outside object"),
        (b"K\x01Q.", "outside object"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"}(K\x01K\x02ub.", "BUILD"),
        (b"", "broken"),
        (b"\x80\x04", "broken"),
        (b".", "broken"),
        (b"0.", "broken"),
        (b"h\x05.", "broken"),
        (b"not a pickle at all", "broken"),
        (b"\x80\x63N.", "broken"),
        (b"]]K\x01s.", "broken"),
    ],
)
def test_hand_made_pickles_are_refused(data, reason):
    with pytest.raises(SkipSample, match=reason):
        load_plain(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"a.",  # 8 GiB of bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 2**33) + b"a.",  # 8 GiB of text
        b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\x01.",  # a number of 1 GiB
        b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",  # a table of 2**32 entries
        b"Np2147483647\n.",
    ],
)
def test_what_asks_for_absurd_memory_gets_none(data):
    tracemalloc.start()
    try:
        with pytest.raises(SkipSample, match=r"broken|absurd"):
            load_plain(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused_and_the_limit_is_exact():
    value = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert load_plain(pickle.dumps(value)) == value
    with pytest.raises(SkipSample, match="too deep"):
        load_plain(pickle.dumps([value]))
    with pytest.raises(SkipSample, match="too deep"):
        load_plain(b"]" * 100_000 + b"a" * 99_999 + b".")


def test_a_value_in_itself_is_refused():
    knot = []
    knot.append(knot)
    with pytest.raises(SkipSample, match="holds itself"):
        load_plain(pickle.dumps(knot))
    ring = {}
    ring["a"] = [ring]
    with pytest.raises(SkipSample, match="holds itself"):
        load_plain(pickle.dumps(ring))


def test_shared_values_are_walked_once():
    """Fifteen levels of ten references each are 10**15 paths and 150 references."""
    value = "x"
    for _ in range(MAX_DEPTH - 1):
        value = [value] * 10
    assert load_plain(pickle.dumps(value))[0][0] is not None


def test_depth_counts_along_the_longest_way():
    """A shared list is found first high up and then deep down, where it is too deep."""
    low = [1]
    for _ in range(7):
        low = [low]
    deep = low
    for _ in range(MAX_DEPTH - 8):
        deep = [deep]
    with pytest.raises(SkipSample, match="too deep"):
        load_plain(pickle.dumps([low, deep]))


def test_a_pickle_is_bounded_in_length(monkeypatch):
    monkeypatch.setattr("mllm_npu.data.convert.plain_pickle.MAX_BYTES", 10)
    with pytest.raises(SkipSample, match="too large"):
        load_plain(pickle.dumps("a" * 20))
    monkeypatch.undo()
    monkeypatch.setattr("mllm_npu.data.convert.plain_pickle.MAX_INSTRUCTIONS", 20)
    with pytest.raises(SkipSample, match="too long"):
        load_plain(pickle.dumps(list(range(30))))


def test_the_unpickler_itself_looks_up_nothing():
    from mllm_npu.data.convert.plain_pickle import _PlainUnpickler

    with pytest.raises(SkipSample, match=r"posix\.system"):
        _PlainUnpickler(io.BytesIO(pickle.dumps(Caller(os.system, "true")))).load()
    with pytest.raises(SkipSample, match="outside"):
        _PlainUnpickler(io.BytesIO(b"Pelsewhere\n.")).load()
