"""Run every module alone on what side A was given, so that the error of each is its own.

A module is fed the inputs that side A has recorded, and its output the gradient that side A has
recorded; what the modules before it and behind it do wrong does not reach it. A module that holds
others runs with all of them inside.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from mllm_npu.compare.nested import map_tensors, tensors_of
from mllm_npu.compare.recording import Call, Event, Kind, Recording
from mllm_npu.compare.watch import Listener, label


class Isolation:
    """Runs modules alone while an objective runs without gradients; use it in a ``with``.

    Args:
        root: the objective, of either side.
        recording: of side A.
        listener: takes ``own_output``, ``own_input_grad`` and ``own_parameter_grad``.

    Attributes:
        unlike: modules that were given other shapes than on side A, and did not run alone.
    """

    def __init__(self, root: nn.Module, recording: Recording, listener: Listener) -> None:
        self.root = root
        self.recording = recording
        self.listener = listener
        self.unlike: list[str] = []
        self._calls = {(call.module, call.count): call for call in recording.calls}
        self._names = {id(module): label(name) for name, module in root.named_modules()}
        self._counts: dict[str, int] = {}
        self._is_inside = False
        self._handles: list[Any] = []
        self._caches = True

    def __enter__(self) -> Self:
        self._handles = [
            module.register_forward_pre_hook(self._run, with_kwargs=True, prepend=True)
            for module in self.root.modules()
        ]
        # What autocast keeps of a weight without gradients has none later.
        self._caches = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_autocast_cache_enabled(self._caches)
        for handle in self._handles:
            handle.remove()

    def _run(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_inside:
            return
        name = self._names[id(module)]
        self._counts[name] = self._counts.get(name, 0) + 1
        call = self._calls.get((name, self._counts[name]))
        if call is None:
            return
        self._is_inside = True
        try:
            with torch.random.fork_rng(devices=[]):
                self._run_alone(module, call, args, kwargs)
        finally:
            self._is_inside = False

    def _run_alone(self, module: nn.Module, call: Call, args: Any, kwargs: Any) -> None:
        leaves: dict[str, Tensor] = {}
        fits = True

        def give(path: str, tensor: Tensor) -> Tensor:
            nonlocal fits
            entry = self._entry("input", call, path)
            if entry is None or entry.shape != tuple(tensor.shape):
                fits = False
                return tensor
            if not (tensor.is_floating_point() or tensor.is_complex()):
                return tensor
            given = self.recording.tensor(entry).to(tensor, copy=True)
            if not entry.needs_grad:
                return given
            leaves[path] = given.requires_grad_()
            return given.clone()  # what is no leaf may be changed in place

        with torch.enable_grad():
            given_args, given_kwargs = map_tensors(args, give), map_tensors(kwargs, give)
            if not fits:
                self.unlike.append(call.module)
                return
            output = module(*given_args, **given_kwargs)
            self._tell_outputs(call, output)
            self._tell_gradients(module, call, leaves, output)

    def _tell_outputs(self, call: Call, output: Any) -> None:
        for path, tensor in tensors_of(output):
            self.listener.take(_event("own_output", call, path), tensor)

    def _tell_gradients(
        self, module: nn.Module, call: Call, leaves: dict[str, Tensor], output: Any
    ) -> None:
        own = {n: p for n, p in self._parameters(module).items() if p.requires_grad}
        wanted = [*leaves.values(), *own.values()]
        reached = [
            (tensor, gradient)
            for path, tensor in tensors_of(output)
            if (gradient := self.recording.get("output_grad", call, path)) is not None
            and gradient.shape == tensor.shape
        ]
        if not reached or not wanted:
            return
        pairs = [(tensor, g.to(tensor)) for tensor, g in reached if tensor.requires_grad]
        found: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if pairs:
            outputs, gradients = zip(*pairs, strict=True)
            found = torch.autograd.grad(outputs, wanted, gradients, allow_unused=True)
        places: list[tuple[Kind, str]] = [("own_input_grad", path) for path in leaves]
        places += [("own_parameter_grad", name) for name in own]
        for (kind, path), source, gradient in zip(places, wanted, found, strict=True):
            # What nothing reaches has the gradient zero.
            told = torch.zeros_like(source) if gradient is None else gradient
            self.listener.take(_event(kind, call, path), told)

    def _parameters(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Parameters of a module and of those inside it that are never called themselves."""
        called = {name for name, _ in self._calls}
        own = dict(module.named_parameters(recurse=False))
        for name, child in module.named_children():
            if self._names[id(child)] not in called:
                own |= {f"{name}.{n}": p for n, p in self._parameters(child).items()}
        return own

    def _entry(self, kind: Kind, call: Call, path: str) -> Any:
        return self.recording.entries.get(_event(kind, call, path).key)


def _event(kind: Kind, call: Call, path: str) -> Event:
    return Event(kind=kind, call=call.index, module=call.module, count=call.count, path=path)
