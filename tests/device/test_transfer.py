import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mllm_npu.device.platform import available_platforms
from mllm_npu.device.transfer import on_host, pick_rows, to_device

ACCELERATORS = [row.name for row in available_platforms() if row.name != "cpu"]


@pytest.fixture
def copies(monkeypatch):
    """What pinned memory and copies were asked for; nothing is pinned and all stays on the host."""
    asked = []

    def pin_memory(self):
        asked.append("pin")
        return self

    def to(self, device, non_blocking=False):
        asked.append((torch.device(device).type, non_blocking))
        return self

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    return asked


def test_on_the_host_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, "cpu") is tensor
    assert to_device(tensor, torch.device("meta")).is_meta


def test_an_accelerator_gets_it_from_pinned_memory(copies):
    to_device(torch.arange(3), "cuda:0")
    assert copies == ["pin", ("cuda", True)]


def test_only_accelerators_need_pinned_memory(copies):
    to_device(torch.arange(3), "cpu")
    to_device(torch.empty(3, device="meta"), "cuda")
    assert copies == [("cpu", False), ("cuda", False)]


def test_what_stands_for_a_tensor_is_not_pinned(copies):
    with FakeTensorMode():
        to_device(torch.arange(3), "cuda")
    assert copies == [("cuda", True)]


@pytest.mark.parametrize("device", ACCELERATORS)
def test_the_values_arrive(device):
    arrived = to_device(torch.arange(1000), device)
    assert arrived.device.type == device
    assert torch.equal(arrived.cpu(), torch.arange(1000))


def test_rows_are_picked_in_order_and_all_of_them_are_the_tensor_itself():
    rows = torch.arange(12).view(4, 3)
    assert torch.equal(pick_rows(rows, [2, 0, 2]), rows[[2, 0, 2]])
    assert pick_rows(rows, (0, 1, 2, 3)) is rows
    assert pick_rows(rows, []).shape == (0, 3)


def test_work_of_the_host_has_values_where_all_around_has_none():
    @on_host
    def total(values, *, times=1):
        """Adds up."""
        return times * int((values + torch.ones(2)).sum())

    values = torch.tensor([1.0, 2.0])
    with FakeTensorMode():
        assert total(values, times=2) == 10
    assert total(values) == 5
    assert total.__doc__ == "Adds up."
