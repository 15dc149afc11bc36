"""Find and replace the tensors inside what modules take and give, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

_DEEPEST = 8
"""Levels that are looked into; what holds itself ends there."""


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors in tuples, lists, mappings and dataclasses, each with its path, in a fixed order.

    Args:
        value: anything; what holds no tensors gives none. An output of transformers is a mapping.
        path: where it stands, such as ``terms.language``; empty for the value itself.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif path.count(".") < _DEEPEST:
        for key, member in _members(value):
            yield from tensors_of(member, f"{path}.{key}" if path else key)


def map_tensors(value: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """The same value with its tensors changed; the very same object where nothing is changed.

    Args:
        value: see ``tensors_of``.
        change: takes path and tensor.
        path: where it stands.
    """
    if isinstance(value, Tensor):
        return change(path, value)
    if path.count(".") >= _DEEPEST:
        return value
    changed = {}
    for key, member in _members(value):
        new = map_tensors(member, change, f"{path}.{key}" if path else key)
        if new is not member:
            changed[key] = new
    return _rebuild(value, changed) if changed else value


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), member) for key, member in value.items()]
    if isinstance(value, tuple | list):
        return [(str(place), member) for place, member in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            (entry.name, getattr(value, entry.name, None)) for entry in dataclasses.fields(value)
        ]
    return []


def _rebuild(value: Any, changed: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return type(value)({key: changed.get(str(key), member) for key, member in value.items()})  # type: ignore[call-arg]
    if isinstance(value, tuple | list):
        members = [changed.get(str(place), member) for place, member in enumerate(value)]
        named = hasattr(value, "_fields")
        return type(value)(*members) if named else type(value)(members)
    return dataclasses.replace(value, **changed)
