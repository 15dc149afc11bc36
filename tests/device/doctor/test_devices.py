"""What is said about accelerators that are here, absent or in each other's way."""

from types import SimpleNamespace

import pytest
import torch

from mllm_npu.device.doctor import devices
from mllm_npu.device.doctor.devices import (
    examine_accelerator,
    examine_conflict,
    examine_devices,
    examine_torchvision,
)
from mllm_npu.device.platform import platform_named


class FakeModule:
    """Stands for torch.npu or torch.cuda."""

    def __init__(self, *names: str, gib: float = 64, bf16: bool = True) -> None:
        self.names, self.gib, self.bf16 = names, gib, bf16

    def device_count(self) -> int:
        return len(self.names)

    def get_device_name(self, index: int) -> str:
        return self.names[index]

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=int(self.gib * 2**30))

    def is_bf16_supported(self, **options: bool) -> bool:
        return self.bf16


@pytest.fixture
def accelerator(monkeypatch):
    """Examines an accelerator made up; rows by name."""

    def look(*names: str, platform: str = "npu", **settings):
        module = FakeModule(*names, **settings)
        monkeypatch.setattr(torch, "get_device_module", lambda device: module)
        return {check.name: check for check in examine_accelerator(platform_named(platform))}

    return look


def test_a_known_device_is_described(accelerator):
    rows = accelerator(*["Ascend910B3"] * 8)
    assert rows["device npu"].found == "8 x Ascend910B3"
    assert rows["device npu"].figures == {"devices": 8}
    assert rows["npu memory"].found == "64.0 GiB per device"
    assert rows["npu number format"].found == "computes in bfloat16"
    assert rows["npu peak"].found == "295 TFLOP/s in bfloat16"
    assert all(check.state == "good" for check in rows.values())


def test_an_unknown_device_has_no_peak(accelerator):
    row = accelerator("Ascend999")["npu peak"]
    assert row.state == "good"
    assert row.found == "no peak known of this device"
    assert "mfu" in row.advice


def test_devices_of_two_kinds_are_noticed(accelerator):
    assert accelerator("Ascend910B3", "Ascend910B4")["device npu"].state == "notice"


@pytest.mark.parametrize("platform", ["npu", "cuda"])
def test_a_device_without_bfloat16_is_bad_and_says_what_works(accelerator, platform):
    row = accelerator("Ascend910A", platform=platform, bf16=False)[f"{platform} number format"]
    assert row.state == "bad"
    assert row.advice == "train with parallel.compute_dtype=float32"


def test_this_machine_has_its_cpu():
    rows = {check.name: check for check in examine_devices()}
    assert {"device npu", "device cuda", "device cpu"} <= set(rows)
    assert rows["device cpu"].found == "computes in float32"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('raise ImportError("libhccl.so: cannot open shared object file")', "set_env.sh"),
        ('raise RuntimeError("two accelerators")', "CANN"),
    ],
)
def test_an_accelerators_package_that_cannot_be_loaded_is_bad(monkeypatch, tmp_path, text, words):
    (tmp_path / "torch_npu.py").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = next(check for check in examine_devices() if check.name == "device npu")
    assert row.state == "bad"
    assert row.found.startswith("torch_npu cannot be imported: ")
    assert words in row.advice


def test_a_torchvision_that_cannot_be_imported_is_worse_than_none(monkeypatch, tmp_path):
    assert examine_torchvision().state == "good"
    (tmp_path / "torchvision.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    check = examine_torchvision()
    assert check.state == "bad"
    assert "operator torchvision::nms does not exist" in check.found
    assert check.advice == "pip uninstall torchvision"


@pytest.mark.parametrize(
    ("cuda", "extension", "state"),
    [(None, False, "good"), ("13.0", False, "good"), (None, True, "good"), ("13.0", True, "bad")],
)
def test_two_accelerators_in_one_environment_are_bad(monkeypatch, cuda, extension, state):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = object() if extension else None
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: found)
    check = examine_conflict()
    assert check.state == state
    if state == "bad":
        assert check.found == "torch is built for CUDA 13.0, and torch_npu is installed"
        assert "pip uninstall torch-npu" in check.advice
        assert "+cpu" not in check.advice
