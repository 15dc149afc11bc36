"""Define the operators `npu::npu_*` with the schemas of the real package, and give them kernels."""

from pathlib import Path

import torch

from torch_npu import _C
from torch_npu.argument_checks import check_place

SCHEMAS = Path(__file__).with_name("schemas.txt")
LIBRARY = torch.library.Library("npu", "DEF")
for _schema in SCHEMAS.read_text(encoding="utf-8").splitlines():
    LIBRARY.define(_schema)


def register(name, function, on_meta=None):
    """Make a function of host tensors the operator's kernel.

    Args:
        name: of the operator, with its overload.
        function: gets the arguments with host views in place of device tensors; the memory of what
            it gives becomes the device's.
        on_meta: what gives tensors without values their shapes; None for ``function`` itself.
    """

    def run(*args, **settings):
        return run_on_device(name, function, args, settings)

    LIBRARY.impl(name, run, "PrivateUse1")
    LIBRARY.impl(name, on_meta or function, "Meta")


def run_on_device(name, function, args, settings):
    """Call a function of host tensors with device tensors."""
    _C.count_operator(f"npu::{name}")
    device = check_place(name, *_tensors(args), *_tensors(settings.values()))
    hosted = {key: _hosted(value) for key, value in settings.items()}
    return _adopted(function(*map(_hosted, args), **hosted), device.index)


def derive(name, save, backward):
    """Register an operator's derivative.

    Args:
        name: of the operator.
        save: gets ctx, inputs and output; keeps what the backward pass needs.
        backward: gets ctx and the gradients of the outputs; gives those of the first inputs.
    """
    num_inputs = len(getattr(torch.ops.npu, name).default._schema.arguments)

    def padded(ctx, *grads):
        found = backward(ctx, *grads)
        return (*found, *[None] * (num_inputs - len(found)))

    torch.library.register_autograd(f"npu::{name}", padded, setup_context=save, lib=LIBRARY)


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _hosted(value):
    if isinstance(value, torch.Tensor):
        return _C.host_view(value)
    if isinstance(value, list | tuple):
        return [_hosted(part) for part in value]
    return value


def _adopted(result, device):
    if isinstance(result, torch.Tensor):
        return _C.adopt(result, device)
    if isinstance(result, list | tuple):
        return type(result)(_adopted(part, device) for part in result)
    return result
