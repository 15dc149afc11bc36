"""Pick the way an operation is computed by the device of its tensors.

An operation has a slow reference that says what it means, and ways that give the same. A way of one
device comes with a rule that looks at shapes, dtypes and options, never at values; where it says
no, and on every other device, the next way is asked, and the last one takes everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import Parameter

P = ParamSpec("P")
R = TypeVar("R")

REFERENCE = "reference"
"""The name under which calls of references are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way(Generic[P, R]):
    """One way to compute an operation.

    Args:
        name: what it is counted as.
        run: computes it.
        device: torch's type of the devices it runs on; None for all.
        suits: whether it takes these arguments; they are those of ``run``. None takes all.
    """

    name: str
    run: Callable[P, R]
    device: str | None = None
    suits: Callable[..., bool] | None = None


class Op(Generic[P, R]):
    """An operation: call it, and the first way that suits computes it.

    Args:
        name: of the operation, unlike that of any other.
        reference: says slowly what the operation gives.
        ways: best first; the last takes all arguments on all devices. The first argument of each is
            a tensor.
    """

    def __init__(self, name: str, *, reference: Callable[P, R], ways: Sequence[Way[P, R]]) -> None:
        self.name = name
        self.reference = reference
        self.ways = tuple(ways)
        OPS[name] = self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute it, by the reference where that is asked for."""
        if _setting.only_reference:
            _setting.calls[self.name, REFERENCE] += 1
            return self.reference(*args, **kwargs)
        way = self.pick(*args, **kwargs)
        _setting.calls[self.name, way.name] += 1
        return way.run(*args, **kwargs)

    def pick(self, *args: P.args, **kwargs: P.kwargs) -> Way[P, R]:
        """The way that computes this, without computing it."""
        device = device_of(args[0])
        for way in self.ways[:-1]:
            if way.device in (None, device) and (way.suits is None or way.suits(*args, **kwargs)):
                return way
        return self.ways[-1]


OPS: dict[str, Op[..., Any]] = {}
"""Every operation whose module has been imported, by name."""


@dataclass(slots=True)
class _Setting:
    """What holds for the whole process: a device's backward pass runs in a thread of its own."""

    only_reference: bool
    calls: Counter[tuple[str, str]]
    pretended: str | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)


_setting = _Setting(only_reference=False, calls=Counter())


def device_of(tensor: object) -> str:
    """Type of the device whose kernels may read the tensor.

    A tensor that stands for others (sharded, functional) holds nothing such a kernel could read; a
    fake one of a device that is there, or that is pretended, says how that would compute.

    Returns:
        torch's device type, or "" where only what torch itself composes may be used.
    """
    if not isinstance(tensor, Tensor):
        return ""
    if _setting.pretended is not None and isinstance(tensor, FakeTensor):
        return _setting.pretended
    kind = tensor.device.type
    if kind == "cpu" or type(tensor) in (Tensor, Parameter):
        return kind
    is_fake = isinstance(tensor, FakeTensor) and torch.get_device_module(kind).is_available()
    return kind if is_fake else ""


@contextmanager
def only_reference() -> Iterator[None]:
    """Compute every operation by its reference, in the whole process, while this is open.

    A backward pass that computes activations again belongs inside it as well.
    """
    before = _setting.only_reference
    _setting.only_reference = True
    try:
        yield
    finally:
        _setting.only_reference = before


@contextmanager
def pretend(device: str) -> Iterator[None]:
    """Compute with fake tensors as a device would that need not be there, while this is open.

    Whatever device they say they are on, they are computed in the ways of this one, and kernels
    that this machine lacks are stood in for (see `pretended_kernels`).

    Args:
        device: torch's type of it.
    """
    before = _setting.pretended
    _setting.pretended = device
    try:
        yield
    finally:
        _setting.pretended = before
        _setting.kept.clear()


def keep_while_pretending(name: str, make: Callable[[], Tensor]) -> Tensor:
    """A tensor that is made once and kept until the pretence ends.

    Args:
        name: of it.
        make: gives it.
    """
    if name not in _setting.kept:
        _setting.kept[name] = make()
    return _setting.kept[name]


def kept_tensors() -> list[Tensor]:
    """What is kept until the pretence ends."""
    return list(_setting.kept.values())


def pretends(device: str) -> bool:
    """Whether this device is only pretended now."""
    return _setting.pretended == device


def calls() -> Counter[tuple[str, str]]:
    """How often each operation was computed in each way: counts by (operation, way).

    Counters can be subtracted: ``calls() - before`` is what has come since.
    """
    return Counter(_setting.calls)
