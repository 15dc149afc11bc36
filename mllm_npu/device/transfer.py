"""Copy small tensors from the host to a device without stopping the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

P = ParamSpec("P")
R = TypeVar("R")

_HOST = ("cpu", "meta")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Give a tensor of the host on a device; the host goes on before the copy has ended.

    An accelerator copies beside the host only from pinned memory: from any other it stops the host
    until all work queued before is done. torch's own allocator keeps the pinned copy until then.

    Args:
        tensor: any shape and dtype; one of a device is copied as torch does.
        device: where it is needed.
    """
    device = torch.device(device)
    if tensor.device.type != "cpu" or device.type in _HOST:
        return tensor.to(device)
    # What stands for a tensor (a fake one) has no memory to pin.
    pinned = tensor.pin_memory() if type(tensor) is Tensor else tensor
    return pinned.to(device, non_blocking=True)


def pick_rows(rows: Tensor, places: Sequence[int]) -> Tensor:
    """Give some rows of a tensor, by numbers of the host; all of them in order are the tensor.

    Args:
        rows: [N, ...] of any device.
        places: which, 0..N - 1; they may repeat.
    """
    if list(places) == list(range(len(rows))):
        return rows
    index = torch.tensor(tuple(places), dtype=torch.int64, device="cpu")
    return rows.index_select(0, to_device(index, rows.device))


def on_host(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of host tensors compute for real, also where all around it is only traced.

    A dry run has no values on its device; what the host reads to decide what to do has some.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return run
