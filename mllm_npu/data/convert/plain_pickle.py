"""Plain pickle: read dicts, lists, texts, bytes and numbers from a pickle, and nothing else.

The original stores interleaved documents as pickles, and a pickle can name any function to be
called. Here its instructions are walked first: one that could call, import or build an object is
refused by name before anything is loaded, and so is one that asks for more memory than the pickle
has bytes. This is the only module that may import pickle.
"""

from __future__ import annotations

import io
import pickle  # refuses every global, see _PlainUnpickler
import pickletools
from collections.abc import Iterator
from typing import Any, NoReturn

from mllm_npu.errors import SkipSample

MAX_BYTES = 512 * 1024 * 1024
MAX_INSTRUCTIONS = 1_000_000
MAX_DEPTH = 16

_PLAIN = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "DUP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "LONG",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
    ]
)
_BUILDS_LARGE_TABLE = ("PUT", "BINPUT", "LONG_BINPUT")


class _PlainUnpickler(pickle.Unpickler):
    """The second lock: whatever the walk let through, no name is ever looked up."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise SkipSample(f"pickle names a global: {module}.{name}")

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise SkipSample("pickle names an outside object")


def load_plain(data: bytes) -> Any:
    """Read a pickle that holds nothing but plain values.

    Args:
        data: the pickle, of any protocol.

    Returns:
        dict, list, tuple, str, bytes, int, float, bool or None, nested up to 16 deep.

    Raises:
        SkipSample: if it holds anything else (the global it names is in the message), is broken, is
            nested too deep or in itself, or is too large.
    """
    if len(data) > MAX_BYTES:
        raise SkipSample(f"pickle too large: {len(data)} bytes")
    _walk(data)
    try:
        value = _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except (pickle.UnpicklingError, *_BROKEN) as error:
        raise SkipSample(f"pickle broken: {error}") from error
    _check_depth(value, 0, {}, set())
    return value


_BROKEN = (ValueError, TypeError, LookupError, EOFError, AttributeError, OverflowError)


def _walk(data: bytes) -> None:
    """Refuse every instruction that is not plain."""
    texts: list[str] = []
    for count, (name, argument) in enumerate(_instructions(data)):
        if name not in _PLAIN:
            raise SkipSample(_name_danger(name, argument, texts))
        if count >= MAX_INSTRUCTIONS:
            raise SkipSample("pickle too long")
        if name in _BUILDS_LARGE_TABLE and int(argument) > MAX_INSTRUCTIONS:
            raise SkipSample("pickle asks for absurd memory")
        if isinstance(argument, str) and len(argument) < 200:
            texts = [*texts[-1:], argument]


def _instructions(data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for operation, argument, _ in pickletools.genops(data):
            yield operation.name, argument
    except _BROKEN as error:
        raise SkipSample(f"pickle broken: {error}") from error


def _name_danger(operation: str, argument: Any, texts: list[str]) -> str:
    if operation in ("GLOBAL", "INST"):
        return f"pickle names a global: {str(argument).replace(' ', '.')}"
    if operation == "STACK_GLOBAL":
        return f"pickle names a global: {'.'.join(texts)}"
    if operation in ("PERSID", "BINPERSID"):
        return "pickle names an outside object"
    return f"pickle builds an object: {operation}"


def _check_depth(value: Any, level: int, heights: dict[int, int], open_: set[int]) -> int:
    """Levels below a value; every container is looked at once, however often it is named."""
    if not isinstance(value, dict | list | tuple):
        return 0
    if id(value) in open_:
        raise SkipSample("pickle holds itself")
    if id(value) not in heights:
        if level >= MAX_DEPTH:
            raise SkipSample("pickle nested too deep")
        open_.add(id(value))
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        below = (_check_depth(item, level + 1, heights, open_) for item in items)
        heights[id(value)] = 1 + max(below, default=0)
        open_.remove(id(value))
    if level + heights[id(value)] > MAX_DEPTH:
        raise SkipSample("pickle nested too deep")
    return heights[id(value)]
