"""Say of every kernel for which part of the model it runs, and in which phase of the step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from mllm_npu.plan.traced_step import Phase

OUTSIDE = "rest"
"""The part of what no part of the model computes itself, and of parameters of no part."""


class PartWatch:
    """Knows which part runs: by the modules that are called, and backwards by their nodes.

    Args:
        objective: whose model is watched; a part is a child of the model, or of the objective.

    Attributes:
        optimizing: whether the weights are changed now.
        latest: the part whose forward pass began last.
    """

    def __init__(self, objective: nn.Module) -> None:
        self.optimizing = False
        self.latest = OUTSIDE
        self._names = _part_names(objective)
        self._parameter_parts = {
            id(parameter): self._names.get(id(module), OUTSIDE)
            for module in objective.modules()
            for parameter in module.parameters(recurse=False)
        }
        self._running: list[str] = []
        self._starts = [0]
        self._started = [OUTSIDE]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Watch while this is open."""
        hooks = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def parts(self) -> Mapping[int, str]:
        """Part of each parameter, by its id."""
        return self._parameter_parts

    def in_forward(self) -> bool:
        """Whether a forward pass runs, also one that is run again in the backward pass."""
        if self.optimizing:
            return False
        return bool(self._running) or torch._C._current_graph_task_id() == -1

    def runs_again(self) -> bool:
        """Whether a forward pass is run a second time."""
        return bool(self._running) and torch._C._current_graph_task_id() != -1

    def now(self) -> tuple[str, Phase]:
        """The part that runs, and the phase of the step."""
        if self.optimizing:
            return "optimizer", "optimizer"
        backward = torch._C._current_graph_task_id() != -1
        phase: Phase = "backward" if backward else "forward"
        if self._running:
            return self._running[-1], phase
        return (self._of_node() if backward else OUTSIDE), phase

    def _of_node(self) -> str:
        """The part whose forward pass made what runs backwards now."""
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return OUTSIDE
        variable = getattr(node, "variable", None)
        if variable is not None:
            return self._parameter_parts.get(id(variable), OUTSIDE)
        return self._started[bisect_right(self._starts, node._sequence_nr()) - 1]

    def _enter(self, module: nn.Module, _: Any) -> None:
        name = self._names.get(id(module)) or (self._running[-1] if self._running else OUTSIDE)
        self._running.append(name)
        self.latest = name
        self._begin(name)

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        if self._running:
            self._running.pop()
        self._begin(self._running[-1] if self._running else OUTSIDE)

    def _begin(self, name: str) -> None:
        """What is made from here on belongs to this part."""
        if self._started[-1] != name:
            self._starts.append(torch._C._autograd._get_sequence_nr())
            self._started.append(name)


def _part_names(objective: nn.Module) -> dict[int, str]:
    """Part of every module below a part, by its id."""
    model = objective.model
    assert isinstance(model, nn.Module)
    roots = [(name, part) for name, part in objective.named_children() if part is not model]
    roots += list(model.named_children())
    return {id(module): name for name, part in roots for module in part.modules()}
