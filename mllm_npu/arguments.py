"""What constructors take: names and types of their arguments, and whether plain values fit them."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mllm_npu.errors import ConfigError

TARGET = "_target_"
"""Marks a plain dictionary as a part that is built from it."""

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "null",
}
_UNIONS = (Union, types.UnionType)


class Part:
    """Annotates a setting that must be a part: a node with a ``_target_``."""


def argument_names(target: str, path: str) -> list[str]:
    """Names that the class or function behind a ``_target_`` takes.

    Raises:
        ConfigError: nothing that can be called is importable under that name.
    """
    return [name for name in inspect.signature(_find(target, path)).parameters if name != "self"]


def check_arguments(value: Any, path: str) -> None:
    """Compare the arguments of every part below a plain value with the types its class takes.

    Args:
        value: of a configuration, every reference resolved.
        path: where it stands, for the message.

    Raises:
        ConfigError: one has another type; says its path and what is needed.
    """
    if isinstance(value, dict):
        if TARGET in value:
            check_types(value, _find(value[TARGET], path), path)
        for key, member in value.items():
            check_arguments(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            check_arguments(member, f"{path}[{index}]")


def check_types(values: Mapping[str, Any], function: Callable[..., Any], path: str) -> None:
    """Compare plain values with the annotations of the arguments of the same names.

    Raises:
        ConfigError: one has another type.
    """
    expected = argument_types(function)
    for key, value in values.items():
        if key in expected and not fits(value, expected[key]):
            where = f"{path}.{key}" if path else str(key)
            shown = "null" if value is None else repr(value)
            raise ConfigError(f"{where}={shown} was asked for. Give {describe(expected[key])}.")


def argument_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a constructor or function by argument; ``object`` for what is not known here.

    Names that a module imports for type checkers only are not known, and fit anything.
    """
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    names = _KnownNames(vars(sys.modules.get(function.__module__, builtins)))
    try:
        return get_type_hints(called, localns=names)
    except (TypeError, AttributeError, SyntaxError):
        # A library's own function whose annotations cannot be read: nothing is said about it.
        return {}


def fits(value: Any, expected: Any) -> bool:
    """Whether a plain value (numbers, texts, lists, dictionaries, None) may stand for a type.

    Args:
        value: from a configuration, every reference resolved.
        expected: an annotation; a class that is no plain type is a part and needs a ``_target_``.
    """
    origin, members = get_origin(expected), get_args(expected)
    if expected in (Any, object) or isinstance(expected, str):
        return True
    if origin in _UNIONS:
        return any(fits(value, member) for member in members)
    if origin is Literal:
        return any(type(value) is type(member) and value == member for member in members)
    if expected in _WORDS:
        return _is_plain(value, expected)
    kind = origin or expected
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, dict) and _all_fit(value.values(), members[1:])
    if issubclass(kind, Sequence):
        return isinstance(value, list) and _items_fit(value, members)
    return isinstance(value, dict) and TARGET in value


def describe(expected: Any) -> str:
    """A type in words: "a whole number or null"."""
    origin, members = get_origin(expected), get_args(expected)
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(map(describe, members)))
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    if expected in _WORDS:
        return _WORDS[expected]
    kind = origin or expected
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "keys with values"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        inner = f", each {describe(members[0])}" if members else ""
        return f"a list{inner}"
    name = "" if expected is Part else f" ({getattr(kind, '__name__', kind)})"
    return f"a part with a {TARGET}{name}"


def _find(target: str, path: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}.{TARGET} is {target!r}, which cannot be imported ({error}). "
            "Check the spelling."
        ) from error
    if not callable(found):
        raise ConfigError(f"{path}.{TARGET} is {target!r}, which is no class. Name a class.")
    return found


class _KnownNames(dict[str, Any]):
    """Names of a module and of Python; any other name means ``object``."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, object)


def _is_plain(value: Any, expected: Any) -> bool:
    if expected is types.NoneType:
        return value is None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str if expected is Path else expected)


def _all_fit(values: Any, members: tuple[Any, ...]) -> bool:
    return not members or all(fits(value, members[0]) for value in values)


def _items_fit(values: list[Any], members: tuple[Any, ...]) -> bool:
    if len(members) > 1 and members[-1] is not Ellipsis:
        return len(values) == len(members) and all(map(fits, values, members))
    return _all_fit(values, members[:1])
