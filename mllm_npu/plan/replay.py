"""Call the operations of a step once more, each alone.

An operation is called with new tensors of the recorded shapes; what a trace does not record, such
as a dimension, is filled in so that the result has the recorded shape. What cannot be called so is
left to a rule for its class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllm_npu.plan.traced_step import Operation

_POOL_BYTES = 8 << 20
"""Operands take turns over so many bytes, as in a step no operation meets its own ones again."""
_MOST_COPIES = 8
_MOST_GUESSES, _MOST_OVERLOADS, _MOST_TRIES = 12, 4, 24
_FLAGS = ("bool", "uint8")
"""Of results that stand for places, for which no operand can be made up."""
_EMPTY = ("max_exp_avg_sqs",)
_INDICES = ("index", "indices", "target")
_FAULTS = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, MemoryError)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that can be made again and again.

    Args:
        function: overload that is called.
        arguments: by place and by name; what stands for an operand is made when it is timed.
        copies: sets of operands that take turns.
        device: where it is made.
        dtype: of the operands.
    """

    function: Any
    arguments: tuple[list[Any], dict[str, Any]]
    copies: int
    device: torch.device
    dtype: torch.dtype

    def ready(self) -> Callable[[], object]:
        """The call with operands of its own; each time with the next ones."""
        sets = [_operands(self.arguments, self.device, self.dtype) for _ in range(self.copies)]
        turns, function = itertools.cycle(sets), self.function

        def run() -> object:
            placed, named = next(turns)
            return function(*placed, **named)

        return run


def prepare(operation: Operation, device: torch.device) -> Call | None:
    """Find arguments with which an operation gives the recorded shapes."""
    if not operation.shapes or operation.dtype in _FLAGS:
        return None
    dtype = getattr(torch, operation.dtype, torch.float32)
    tries = (
        (function, arguments)
        for function in _find(operation.name)
        for arguments in itertools.islice(
            _guesses(function, operation.shapes, dtype), _MOST_GUESSES
        )
    )
    for function, arguments in itertools.islice(tries, _MOST_TRIES):
        call = _build(function, arguments, operation, device)
        if call is not None:
            return call
    return None


def _find(name: str) -> list[Any]:
    """The overloads behind a recorded name, "aten.mm" or "aten.mm.default"."""
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(torch.ops, namespace), packet)
        names = [overload] if overload else [one for one in found.overloads() if "out" not in one]
        return [getattr(found, one) for one in names[:_MOST_OVERLOADS]]
    except (AttributeError, RuntimeError):
        return []


def _guesses(
    function: Any, shapes: Sequence[Shape], dtype: torch.dtype
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments by place and by name; an operand stands for a tensor."""
    schema = function._schema.arguments
    writes = any(one.alias_info is not None and one.alias_info.is_write for one in schema)
    several = (len(shapes) - len(function._schema.returns), len(shapes) // 2)
    counts = (*filter(None, several), *range(len(shapes) - 1, 0, -1))
    for inputs in dict.fromkeys((len(shapes), *counts) if writes else counts):
        for dim in (-1, 0, 1):
            filled = _fill(schema, _Recorded(shapes[:inputs], shapes[inputs:], dim, dtype))
            if filled is not None:
                yield filled


@dataclass(frozen=True, slots=True)
class _Operand:
    """A tensor of a shape that an argument stands for."""

    shape: Shape
    is_index: bool = False


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What is known of a call, and the dimension that is tried."""

    inputs: Sequence[Shape]
    outputs: Sequence[Shape]
    dim: int
    dtype: torch.dtype


def _fill(schema: Sequence[Any], recorded: _Recorded) -> tuple[list[Any], dict[str, Any]] | None:
    left = list(recorded.inputs)
    lists = sum(
        str(argument.type) == "List[Tensor]" and argument.name not in _EMPTY for argument in schema
    )
    rows = len(left) // lists if lists else 0
    placed: list[Any] = []
    named: dict[str, Any] = {}
    for argument in schema:
        kind = str(argument.type)
        if argument.name in _EMPTY:
            value: Any = []
        elif kind == "List[Tensor]":
            value = [_Operand(shape) for shape in left[:rows]]
            left = left[rows:]
        elif kind in ("Tensor", "Optional[Tensor]"):
            # The second operand of arithmetic may have been a number.
            missing = 2.0 if kind == "Tensor" and placed else None
            is_index = argument.name in _INDICES
            value = _Operand(left.pop(0), is_index) if left else missing
        elif argument.kwarg_only and argument.has_default_value():
            continue
        else:
            value = _plain(argument, kind, recorded)
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            placed.append(value)
    return None if left else (placed, named)


def _plain(argument: Any, kind: str, recorded: _Recorded) -> Any:
    """A value for an argument that is no tensor."""
    inputs, outputs, dim = recorded.inputs, recorded.outputs, recorded.dim
    result = outputs[0] if outputs else inputs[0]
    known: dict[str, Any] = {
        "normalized_shape": [inputs[0][-1]] if inputs[0] else [],
        "num_weights": result[0] if result else 1,
        "num_groups": 1,
        "keepdim": bool(outputs) and len(result) == len(inputs[0]),
        "start": 0,
        "end": _narrowed(inputs[0], result),
        "step": 1,
        "amsgrad": False,
        "maximize": False,
    }
    if argument.name in known:
        return known[argument.name]
    if argument.name in ("dim", "dims"):
        return [dim] if "List" in kind else dim
    if argument.name in ("size", "shape", "input_sizes", "self_size"):
        return list(result)
    if argument.name == "output_mask":
        return [True] * len(outputs)
    if argument.has_default_value():
        return argument.default_value
    fillers: dict[str, Any] = {
        "int": dim, "float": 0.5, "bool": False, "number": 2, "List[int]": [dim],
        "Optional[List[int]]": [dim], "ScalarType": recorded.dtype, "int?": dim,
    }  # fmt: skip
    return fillers.get(kind)


def _narrowed(first: Shape, second: Shape) -> int:
    """The smaller length in the dimension in which two shapes differ."""
    pairs = zip(first, second, strict=False)
    return next((min(pair) for pair in pairs if pair[0] != pair[1]), 1 << 62)


def _build(
    function: Any,
    arguments: tuple[list[Any], dict[str, Any]],
    operation: Operation,
    device: torch.device,
) -> Call | None:
    dtype = getattr(torch, operation.dtype, torch.float32)
    try:
        placed, named = _operands(arguments, device, dtype)
        with torch.no_grad():
            result = function(*placed, **named)
        if not _gives(result, operation.shapes, writes=not function._schema.returns):
            return None
    except _FAULTS:
        return None
    size = sum(math.prod(shape) for shape in operation.shapes) * dtype.itemsize
    copies = max(1, min(_MOST_COPIES, _POOL_BYTES // max(size, 1)))
    return Call(function=function, arguments=arguments, copies=copies, device=device, dtype=dtype)


def _operands(
    arguments: tuple[list[Any], dict[str, Any]], device: torch.device, dtype: torch.dtype
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with a new tensor for every operand."""

    def make(value: Any) -> Any:
        if isinstance(value, list):
            return [make(member) for member in value]
        if not isinstance(value, _Operand):
            return value
        if value.is_index:
            return torch.zeros(value.shape, dtype=torch.int64, device=device)
        return torch.rand(value.shape, device=device).to(dtype)

    placed, named = arguments
    return make(placed), {name: make(value) for name, value in named.items()}


def _gives(result: Any, shapes: Sequence[Shape], *, writes: bool) -> bool:
    """Whether a result has the shapes that were recorded last; what only writes gives none."""
    found = [
        tuple(part.shape)
        for part in (result if isinstance(result, list | tuple) else (result,))
        if isinstance(part, Tensor)
    ]
    if not found:
        return writes
    return tuple(found) == tuple(map(tuple, shapes[-len(found) :]))
