"""Watch the modules of an objective while it runs: what goes in and comes out, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from mllm_npu.compare.nested import map_tensors
from mllm_npu.compare.recording import Call, Event, Kind

_MODEL = "model"
_PASSING = (nn.Identity, nn.Dropout)
"""Give what they were given, in evaluation mode."""


class Listener(Protocol):
    """Takes what a ``Watch`` sees."""

    def take(self, event: Event, tensor: Tensor, *, needs_grad: bool = False) -> None:
        """A tensor at a place; it may be changed later, and is not to be kept as it is."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """A call that has begun."""

    index: int
    name: str
    count: int
    parent: int
    before: int

    def event(self, kind: Kind, path: str) -> Event:
        return Event(
            kind=kind, call=self.index, module=label(self.name), count=self.count, path=path
        )


class Watch:
    """Tells a listener of every tensor that enters or leaves a module; use it in a ``with``.

    Gradients are told where they reach an output from outside, and what each call gives back to
    its inputs; what other calls give back to the same tensor does not count. What is computed again
    in the backward pass is not told twice.

    Args:
        root: an objective.
        listener: takes the tensors.

    Attributes:
        calls: that have ended, by index once the forward pass is over.
    """

    def __init__(self, root: nn.Module, listener: Listener) -> None:
        self.root = root
        self.listener = listener
        self._names = {id(module): name for name, module in root.named_modules()}
        self._operations = {id(module): count_operations(module) for module in root.modules()}
        self._counts: dict[str, int] = {}
        self._first: dict[str, _Open] = {}
        self._open: list[_Open] = []
        self._ended: dict[int, Call] = {}
        self._num_begun = self._num_operations = 0
        self._goes_back = False
        self._handles: list[Any] = []

    @property
    def calls(self) -> list[Call]:
        """All calls by index; those that were broken off are left out."""
        return [self._ended[index] for index in sorted(self._ended)]

    def __enter__(self) -> Self:
        for module in self.root.modules():
            self._handles.append(
                module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
            )
            self._handles.append(module.register_forward_hook(self._end))
        for name, parameter in self.root.named_parameters():
            if parameter.requires_grad:
                tell = self._tell_gradient_of(name)
                handle = parameter.register_post_accumulate_grad_hook(tell)  # type: ignore[no-untyped-call]
                self._handles.append(handle)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def going_back(self) -> Iterator[None]:
        """The backward pass runs inside."""
        self._goes_back = True
        try:
            yield
        finally:
            self._goes_back = False

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if self._goes_back:
            return None
        name = self._names[id(module)]
        self._counts[name] = self._counts.get(name, 0) + 1
        call = _Open(
            index=self._num_begun,
            name=name,
            count=self._counts[name],
            parent=self._open[-1].index if self._open else -1,
            before=self._num_operations,
        )
        self._num_begun += 1
        self._open.append(call)
        self._first.setdefault(name, call)

        pass_on = self._passing(call, "input", "input_grad")
        return map_tensors(args, pass_on), map_tensors(kwargs, pass_on)

    def _end(self, module: nn.Module, _: Any, output: Any) -> Any:
        if self._goes_back:
            return None
        call = self._open.pop()
        self._num_operations += self._operations[id(module)]
        own = {str(p.dtype).removeprefix("torch.") for p in module.parameters(recurse=False)}
        self._ended[call.index] = Call(
            index=call.index,
            module=label(call.name),
            count=call.count,
            parent=call.parent,
            kind=type(module).__name__,
            dtypes=tuple(sorted(own)),
            before=call.before,
            behind=self._num_operations,
        )
        return map_tensors(output, self._passing(call, "output", "output_grad"))

    def _passing(self, call: _Open, kind: Kind, gradient: Kind) -> Callable[[str, Tensor], Tensor]:
        """Tell a tensor at the border of a module, and give on what stands for it there.

        A tensor of its own: what comes back to it has passed this border, and no other use of the
        same tensor inside or outside counts.
        """

        def pass_on(path: str, tensor: Tensor) -> Tensor:
            wants = torch.is_grad_enabled() and tensor.requires_grad
            self.listener.take(call.event(kind, path), tensor, needs_grad=wants)
            if not wants:
                return tensor
            own = tensor.view_as(tensor)
            event = call.event(gradient, path)
            own.register_hook(  # type: ignore[no-untyped-call]
                lambda grad: self.listener.take(event, grad)
            )
            return own

        return pass_on

    def _tell_gradient_of(self, name: str) -> Callable[[Tensor], None]:
        def tell(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self.listener.take(self._event_of(name), parameter.grad)

        return tell

    def _event_of(self, parameter: str) -> Event:
        """Where the gradient of a parameter belongs: to the innermost called module around it."""
        name = parameter
        while name:
            name = name.rpartition(".")[0]
            if name in self._first:
                break
        owner = self._first.get(name)
        path = label(parameter)
        if owner is None:
            return Event(kind="parameter_grad", call=-1, module=path, count=1, path=path)
        return owner.event("parameter_grad", path)


def count_operations(module: nn.Module) -> int:
    """Operations of a module itself: one with parameters of its own or without children computes.

    Attention of torch does the work of its four products and calls no module for them.
    """
    if isinstance(module, _PASSING):
        return 0
    if isinstance(module, nn.MultiheadAttention):
        return 4
    own = next(module.parameters(recurse=False), None)
    return int(own is not None or next(module.children(), None) is None)


def label(name: str) -> str:
    """How a module or parameter of an objective is called: as in its model."""
    return name.removeprefix(f"{_MODEL}.") or "objective"
