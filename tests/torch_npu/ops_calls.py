"""Read from the source of ``mllm_npu/ops`` which fused kernels it calls, and how."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "npu_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a fused kernel.

    Args:
        place: file and line.
        kernel: its name, such as npu_rms_norm.
        positional: how many arguments are passed by place.
        keywords: names of those passed by name; what ``**`` passes is not known here.
    """

    place: str
    kernel: str
    positional: int
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a kernel takes: names of all arguments in order, and how many of them by place."""

    names: tuple[str, ...]
    positional: int


def calls_below(folder: Path) -> list[Call]:
    """Every call of a fused kernel in the Python files of a folder."""
    return [call for path in sorted(folder.rglob("*.py")) for call in calls_in(path)]


def calls_in(path: Path) -> Iterator[Call]:
    """Calls such as ``extension.npu_rms_norm(x, gamma, epsilon=eps)`` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr.startswith(_PREFIX):
            yield Call(
                place=f"{path.name}:{node.lineno}",
                kernel=node.func.attr,
                positional=len(node.args),
                keywords=tuple(entry.arg for entry in node.keywords if entry.arg is not None),
            )


def read_signature(schema: str) -> Signature:
    """The arguments of a schema such as ``npu::f(Tensor x, *, float eps=1e-06) -> Tensor``."""
    inside = schema.partition("(")[2].rpartition(") ->")[0]
    names: list[str] = []
    positional: int | None = None
    for part in _split(inside):
        if part == "*":
            positional = len(names)
        else:
            names.append(part.partition("=")[0].split()[-1])
    return Signature(
        names=tuple(names), positional=len(names) if positional is None else positional
    )


def complaints(calls: Iterable[Call], signatures: dict[str, list[Signature]]) -> list[str]:
    """Calls that no signature of their kernel takes, one line each.

    Args:
        calls: of kernels.
        signatures: of every kernel by name, one per overload.
    """
    found = []
    for call in calls:
        known = signatures.get(call.kernel)
        if not known:
            found.append(f"{call.place}: there is no {call.kernel}")
        elif not any(_takes(signature, call) for signature in known):
            takes = " or ".join(", ".join(signature.names) for signature in known)
            found.append(
                f"{call.place}: {call.kernel} takes {takes}; {call.positional} by place and "
                f"{', '.join(call.keywords) or 'none'} by name are passed"
            )
    return found


def _takes(signature: Signature, call: Call) -> bool:
    by_name = signature.names[call.positional :]
    return call.positional <= signature.positional and set(call.keywords) <= set(by_name)


def _split(inside: str) -> Iterator[str]:
    """Arguments of a schema, parted at commas outside brackets and quotes."""
    depth, quoted, start = 0, False, 0
    for place, letter in enumerate(inside):
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "[(":
            depth += 1
        elif not quoted and letter in "])":
            depth -= 1
        elif letter == "," and not depth and not quoted:
            yield inside[start:place].strip()
            start = place + 1
    if inside.strip():
        yield inside[start:].strip()
