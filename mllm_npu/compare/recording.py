"""What a side gave: every call of a module, and every tensor that went in and out, in order."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mllm_npu.compare.tensor_store import TensorStore

Kind = Literal[
    "input",
    "output",
    "loss",
    "output_grad",
    "input_grad",
    "parameter_grad",
    "change",
    "own_output",
    "own_input_grad",
    "own_parameter_grad",
]
"""``change``: what updates made of a parameter. ``own_``: what a module alone gives from the inputs
and the output's gradient of side A."""

OWN: Mapping[Kind, Kind] = {
    "own_output": "output",
    "own_input_grad": "input_grad",
    "own_parameter_grad": "own_parameter_grad",
}
"""What the results of a module alone are compared with."""

_OF_PARAMETERS: tuple[Kind, ...] = ("parameter_grad", "change")
"""Told by the name of the parameter alone: its module may be called on one side only."""

_KNOWN_ALREADY: tuple[Kind, ...] = ("own_output", "own_input_grad")
"""A module alone gives side A what it gave in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a module.

    Args:
        index: its number among all calls, by their beginnings.
        module: name of the module.
        count: its number among the calls of this module, from 1 on.
        parent: index of the call it was made in, -1 for the first.
        kind: class of the module.
        dtypes: of the module's own parameters.
        before: operations that were finished before it began.
        behind: operations that were finished when it ended.
    """

    index: int
    module: str
    count: int
    parent: int
    kind: str
    dtypes: tuple[str, ...]
    before: int
    behind: int

    @property
    def inside(self) -> int:
        """Operations in it, its own included."""
        return max(1, self.behind - self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A tensor at a place.

    Args:
        kind: see ``Kind``.
        call: index of the call; -1 where it belongs to none.
        module: name of its module, or what it is of.
        count: number of the call among those of the module.
        path: where the tensor stands in inputs or outputs, or the name of a parameter.
    """

    kind: Kind
    call: int
    module: str
    count: int
    path: str = ""

    @property
    def key(self) -> str:
        """Name that is the same on both sides; calls are told by module and count."""
        where = "" if self.kind in _OF_PARAMETERS else f"{self.module}#{self.count}"
        return f"{self.kind}:{where}:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of the tensor of an event.

    Args:
        event: where it was.
        content: its name in the store; a tensor that is passed on unchanged is kept once.
        dtype: of its elements.
        shape: its sizes.
        norm: its norm (L2); 0 for whole numbers.
        needs_grad: whether a gradient was asked of it.
    """

    event: Event
    content: str
    dtype: str
    shape: tuple[int, ...]
    norm: float
    needs_grad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Numbers of an update.

    Args:
        step: its number, from 1 on.
        loss: of the update.
        grad_norm: before clipping.
    """

    step: int
    loss: float
    grad_norm: float


@dataclass(slots=True, kw_only=True)
class Facts:
    """What is known of a side besides its tensors; plain values.

    Args:
        side: as it was asked for.
        title: name of the run.
        device: where it computed.
        compute_dtype: in which matrices were multiplied.
        weights: checksum of each parameter and buffer before anything was computed.
        shapes: sizes of the same.
        settings: what must be the same to compare with it later.
        overrides: with which it was asked for.
        steps: numbers of its updates.
        is_isolated: whether modules were also run alone.
        unlike: modules that did not run alone: they were given other shapes than on side A.
        ways: how often operations were computed in which way.
    """

    side: str = ""
    title: str = ""
    device: str = ""
    compute_dtype: str = "float32"
    weights: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    is_isolated: bool = False
    unlike: list[str] = field(default_factory=list)
    ways: dict[str, int] = field(default_factory=dict)


class Recording:
    """Keeps what a side gives; listens to a ``Watch``.

    Args:
        store: takes the tensors.

    Attributes:
        calls: by index.
        entries: in the order of the events.
        facts: of the side.
    """

    def __init__(self, *, store: TensorStore) -> None:
        self.store = store
        self.calls: list[Call] = []
        self.entries: dict[str, Entry] = {}
        self.facts = Facts()
        self._alive: dict[tuple[Any, ...], tuple[weakref.ref[Tensor], str]] = {}

    def take(self, event: Event, tensor: Tensor, *, needs_grad: bool = False) -> None:
        """Keep the tensor of an event.

        Args:
            event: where it was.
            tensor: of any device.
            needs_grad: see ``Entry``.
        """
        if event.kind in _KNOWN_ALREADY:
            return
        self.entries[event.key] = Entry(
            event=event,
            content=self._keep(event.key, tensor.detach(), tensor),
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            norm=_norm(tensor),
            needs_grad=needs_grad,
        )

    def end(self, calls: Sequence[Call], facts: Facts) -> None:
        """Take what is known once the side has finished."""
        self.calls, self.facts = list(calls), facts
        self._alive = {}

    def tensor(self, entry: Entry) -> Tensor:
        """The tensor of an entry, on the host."""
        return self.store.get(entry.content)

    def get(self, kind: Kind, call: Call, path: str) -> Tensor | None:
        """The tensor at a place, None where nothing was there."""
        event = Event(kind=kind, call=-1, module=call.module, count=call.count, path=path)
        entry = self.entries.get(event.key)
        return None if entry is None else self.tensor(entry)

    @property
    def num_operations(self) -> int:
        """Operations of the whole forward pass."""
        return max((call.behind for call in self.calls), default=0)

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors."""
        return {
            "calls": [asdict(call) for call in self.calls],
            "entries": [asdict(entry) for entry in self.entries.values()],
            "facts": asdict(self.facts),
        }

    def load_json(self, values: Mapping[str, Any]) -> None:
        """Take what ``to_json`` gave.

        Raises:
            KeyError, TypeError: it is something else.
        """
        self.calls = [Call(**{**one, "dtypes": tuple(one["dtypes"])}) for one in values["calls"]]
        for one in values["entries"]:
            event = Event(**one["event"])
            entry = Entry(**{**one, "event": event, "shape": tuple(one["shape"])})
            self.entries[event.key] = entry
        facts = dict(values["facts"])
        facts["steps"] = [Step(**one) for one in facts["steps"]]
        self.facts = Facts(**facts)

    def _keep(self, key: str, tensor: Tensor, original: Tensor) -> str:
        """Put the tensor into the store, unless the same memory is there and unchanged."""
        place = (
            tensor.device,
            tensor.data_ptr(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
            original._version,
        )
        known = self._alive.get(place)
        if known is not None and known[0]() is not None:
            return known[1]
        self.store.put(key, tensor)
        self._alive[place] = (weakref.ref(original), key)
        return key


def _norm(tensor: Tensor) -> float:
    if not tensor.is_floating_point():
        return 0.0
    wide = tensor.detach() if tensor.dtype is torch.float64 else tensor.detach().float()
    return float(torch.linalg.vector_norm(wide))
