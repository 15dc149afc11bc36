"""The table of platforms and the choice from it."""

import dataclasses

import pytest
import torch

from mllm_npu.device import platform
from mllm_npu.device.platform import (
    PLATFORMS,
    available_platforms,
    is_available,
    load_extension,
    num_devices,
    pick_device,
    platform_named,
    platform_of,
)
from mllm_npu.errors import DeviceError


@pytest.fixture
def only_cpu(monkeypatch):
    """A machine without an accelerator, whatever the tests run on."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


@pytest.fixture
def with_cuda(monkeypatch):
    """A machine whose torch sees one CUDA device."""
    device = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)


def test_the_table_is_best_first_and_ends_with_the_cpu():
    assert [row.name for row in PLATFORMS] == ["npu", "cuda", "cpu"]
    assert [row.collective_backend for row in PLATFORMS] == ["hccl", "nccl", "gloo"]
    assert [row.ray_resource for row in PLATFORMS] == ["NPU", "GPU", "CPU"]
    assert platform_named("cpu").compute_dtype is torch.float32
    assert all(row.compute_dtype is torch.bfloat16 for row in PLATFORMS[:-1])
    assert all(row.remedy for row in PLATFORMS[:-1])


def test_auto_takes_the_cpu_where_nothing_better_is(only_cpu):
    assert pick_device() == torch.device("cpu")
    assert [row.name for row in available_platforms()] == ["cpu"]


def test_auto_takes_the_accelerator_where_one_is(with_cuda):
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
    assert [row.name for row in available_platforms()] == ["cuda", "cpu"]


@pytest.mark.parametrize("name", ["npu", "cuda"])
def test_a_missing_accelerator_is_named_with_what_is_there_and_what_to_do(only_cpu, name):
    with pytest.raises(DeviceError) as caught:
        pick_device(name)
    message = str(caught.value)
    assert message.startswith(f"device={name!r} was asked for, this machine has ['cpu'].")
    assert "device=auto" in message
    assert platform_named(name).remedy in message


@pytest.mark.parametrize("name", ["gpu", "cuda:7", "", "CPU"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(DeviceError, match="knows npu, cuda, cpu"):
        pick_device(name)


def test_an_extension_that_fails_to_load_means_no_device(monkeypatch, tmp_path, with_cuda):
    (tmp_path / "broken_extension.py").write_text('raise OSError("libascendcl.so: not found")\n')
    monkeypatch.syspath_prepend(tmp_path)
    reason = load_extension("broken_extension")
    assert reason == "broken_extension cannot be imported: libascendcl.so: not found"
    row = dataclasses.replace(platform_named("cuda"), extension="broken_extension")
    assert not is_available(row)


def test_an_extension_is_imported_before_the_device_is_looked_for(monkeypatch, tmp_path):
    (tmp_path / "good_extension.py").write_text("loaded = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = dataclasses.replace(platform_named("npu"), extension="good_extension")
    device = torch.device("npu") if hasattr(torch, "npu") else torch.device("cuda")
    row = dataclasses.replace(row, name=device.type)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    assert is_available(row)
    assert load_extension("no_such_extension") == "no_such_extension is not installed"


def test_the_row_of_a_device(monkeypatch):
    assert platform_of(torch.device("cpu")).name == "cpu"
    assert platform_of(torch.device("cuda:1")).name == "cuda"
    with pytest.raises(DeviceError, match="'meta'"):
        platform_of(torch.device("meta"))


def test_devices_are_counted_by_the_devices_own_module(monkeypatch):
    class FourDevices:
        @staticmethod
        def device_count() -> int:
            return 4

    monkeypatch.setattr(platform.torch, "get_device_module", lambda device: FourDevices)
    assert num_devices(torch.device("cuda")) == 4
    assert num_devices(torch.device("cpu")) == 1
