"""The imagined device: fake tensors, copies from the host, dtypes of an accelerator's autocast."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.checkpoint import checkpoint

from mllm_npu.device.transfer import on_host
from mllm_npu.plan.fake_device import FakeDevice


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("scale", torch.ones(3))
        self.plain = torch.ones(2)


def on_meta():
    with torch.device("meta"):
        return Tied()


@pytest.mark.parametrize("kind", ["npu", "cuda", "cpu"])
def test_a_module_without_memory_takes_its_place(kind):
    device, module = FakeDevice(kind=kind), on_meta()
    module.head.weight.requires_grad_(False)
    device.take(module)
    for tensor in (module.table.weight, module.scale, module.plain):
        assert isinstance(tensor, FakeTensor)
        assert tensor.device.type == "cpu"
    assert module.head.weight is module.table.weight
    assert isinstance(module.head.weight, nn.Parameter)
    assert not module.head.weight.requires_grad


def test_what_comes_from_the_host_is_copied_and_told():
    device, told = FakeDevice(kind="npu"), []
    device.on_copy = told.append
    tiles = torch.ones(2, 3)
    with device():
        copied = tiles.to(torch.device("cpu"))
        assert isinstance(copied, FakeTensor)
        assert copied.to("cpu") is copied
        assert not isinstance(tiles.to(torch.float64), type(None))
    assert told == [copied]
    assert (copied.shape, copied.dtype) == (tiles.shape, tiles.dtype)


def test_a_cpu_computes_where_the_tensors_are():
    device, told = FakeDevice(kind="cpu"), []
    device.on_copy = told.append
    tiles = torch.ones(2, 3)
    with device():
        assert tiles.to(torch.device("cpu")) is tiles
    assert told == []
    assert not device.is_accelerator


@pytest.mark.parametrize(("kind", "dtype"), [("npu", torch.float32), ("cpu", torch.bfloat16)])
def test_accelerators_widen_norms_under_autocast(kind, dtype):
    with FakeDevice(kind=kind)(), torch.autocast("cpu", torch.bfloat16):
        narrow = torch.empty(4, 8, dtype=torch.bfloat16)
        weight = torch.empty(8, dtype=torch.bfloat16)
        assert F.layer_norm(narrow, (8,), weight, weight).dtype is dtype


def test_what_is_computed_again_is_widened_again():
    """torch compares the dtypes of what a block saves in its two forward passes."""
    with FakeDevice(kind="npu")(), torch.autocast("cpu", torch.bfloat16):
        norm = nn.GroupNorm(2, 8, dtype=torch.bfloat16)
        seen = torch.empty(4, 8, 16, dtype=torch.bfloat16, requires_grad=True)
        checkpoint(norm, seen, use_reentrant=False).sum().backward()
        assert seen.grad.shape == seen.shape
        assert seen.grad.dtype is torch.bfloat16
        assert norm.weight.grad.shape == (8,)


def test_a_given_gradient_goes_the_usual_way():
    with FakeDevice(kind="npu")():
        seen = torch.empty(4, requires_grad=True)
        (2 * seen).backward(torch.empty(4))
        assert seen.grad.shape == (4,)


def test_without_autocast_nothing_is_widened():
    with FakeDevice(kind="npu")():
        assert torch.empty(4, dtype=torch.bfloat16).softmax(0).dtype is torch.bfloat16


def test_work_of_the_host_has_values():
    @on_host
    def count(marks):
        return int((marks + torch.ones(3)).sum())

    marks = torch.tensor([1.0, 0.0, 1.0])
    with FakeDevice(kind="npu")():
        assert count(marks) == 5
    assert count(marks) == 5
