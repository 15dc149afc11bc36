"""Processes get a device each, in turn where there are fewer, and see no other."""

import pytest
import torch

from mllm_npu.device import placement
from mllm_npu.device.placement import Place, share_out
from mllm_npu.device.platform import PLATFORMS, platform_named
from mllm_npu.errors import DeviceError


@pytest.fixture(params=["npu", "cuda"])
def machine(request, monkeypatch):
    """Makes a machine with so many accelerators."""

    def make(count):
        device = torch.device("cuda")  # a name that torch knows without an extension
        monkeypatch.setattr(placement, "pick_device", lambda name: device)
        monkeypatch.setattr(placement, "platform_of", lambda _: platform_named(request.param))
        monkeypatch.setattr(placement, "num_devices", lambda _: count)
        return request.param, platform_named(request.param).visibility

    return make


def names(places):
    return [place.name for place in places]


def test_each_process_has_its_own_device(machine):
    name, visibility = machine(4)
    places = share_out("auto", 4, variables={})
    assert names(places) == [f"{name}:{number}" for number in range(4)]
    assert [place.variables for place in places] == [{visibility: str(each)} for each in range(4)]
    assert {place.device for place in places} == {name}


def test_fewer_devices_are_shared_in_turn(machine):
    name, _ = machine(2)
    assert names(share_out("auto", 5, variables={})) == [
        f"{name}:{number}" for number in (0, 1, 0, 1, 0)
    ]


def test_devices_that_are_left_over_stay_free(machine):
    name, _ = machine(8)
    assert names(share_out("auto", 2, variables={})) == [f"{name}:0", f"{name}:1"]


def test_one_device_may_be_named(machine):
    name, visibility = machine(8)
    places = share_out(f"{name}:5", 2, variables={})
    assert places == [Place(name=f"{name}:5", device=name, variables={visibility: "5"})] * 2


def test_what_a_process_does_not_see_is_not_shared(machine):
    name, visibility = machine(2)
    places = share_out("auto", 3, variables={visibility: "6, GPU-8a1"})
    assert names(places) == [f"{name}:0", f"{name}:1", f"{name}:0"]
    assert [place.variables[visibility] for place in places] == ["6", "GPU-8a1", "6"]
    [only] = share_out(f"{name}:1", 1, variables={visibility: "6,GPU-8a1"})
    assert only.variables == {visibility: "GPU-8a1"}


@pytest.mark.parametrize("number", ["8", "-1", "x", "", "01"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(machine, number):
    name, _ = machine(8)
    with pytest.raises(DeviceError) as caught:
        share_out(f"{name}:{number}", 1, variables={})
    said = str(caught.value)
    assert said.startswith(f"device='{name}:{number}' was asked for, this machine has 8 of {name}")
    assert f"Use device={name}" in said


def test_the_cpu_is_one_for_all():
    assert share_out("cpu", 3) == [Place(name="cpu", device="cpu", variables={})] * 3
    with pytest.raises(DeviceError, match="this machine has cpu"):
        share_out("cpu:0", 1)


def test_an_unknown_device_is_refused_as_anywhere():
    with pytest.raises(DeviceError, match="knows npu, cuda, cpu"):
        share_out("gpu", 2)


def test_every_accelerator_can_be_hidden():
    assert [row.name for row in PLATFORMS if row.visibility is None] == ["cpu"]
