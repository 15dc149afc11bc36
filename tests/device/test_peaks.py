"""The table of peaks, and the measured one of a CPU."""

from types import SimpleNamespace

import pytest
import torch

from mllm_npu.device import peaks
from mllm_npu.device.peaks import peak_flops, peak_named

CPU = torch.device("cpu")
KNOWN = {
    "Ascend910B1": (363.7e12, 99.5e12),
    "Ascend910B2": (353.9e12, 99.5e12),
    "Ascend910B2C": (353.9e12, 99.5e12),
    "Ascend910B3": (294.9e12, 83e12),
    "Ascend910B4": (245.8e12, 75e12),
    "Ascend910B4-1": (245.8e12, 75e12),
    "Ascend910_9391": (363.7e12, 99.5e12),
    "Ascend910_9392": (363.7e12, 99.5e12),
    "Ascend910_9381": (353.9e12, 99.5e12),
    "Ascend910_9382": (353.9e12, 99.5e12),
    "Ascend910_9362": (245.8e12, 75e12),
    "NVIDIA H100 80GB HBM3": (989.4e12, 66.9e12),
    "NVIDIA H100 PCIe": (756e12, 51.2e12),
    "NVIDIA H200": (989.4e12, 66.9e12),
    "NVIDIA A100-SXM4-40GB": (312e12, 19.5e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 19.5e12),
    "NVIDIA A100-PCIE-40GB": (312e12, 19.5e12),
    "NVIDIA A100 80GB PCIe": (312e12, 19.5e12),
}
UNKNOWN = [
    "",
    "Ascend910B",
    "Ascend910A",
    "Ascend910_9372",
    "Ascend910B3X",
    "NVIDIA H100 NVL",
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
    "NVIDIA H200 NVL",
    "NVIDIA GeForce RTX 4090",
]


@pytest.mark.parametrize("name", KNOWN)
def test_known_devices_have_dense_peaks_with_their_source(name):
    found = [peak_named(name, dtype) for dtype in (torch.bfloat16, torch.float32)]
    assert [peak.flops for peak in found] == pytest.approx(KNOWN[name], rel=5e-4)
    assert all(peak.source.startswith(f"{name}: ") for peak in found)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_in_the_table_is_not_guessed(name):
    assert peak_named(name, torch.bfloat16) is None


def test_a_dtype_without_a_number_is_unknown():
    assert peak_named("Ascend910B2", torch.float16) is None
    assert peak_named("NVIDIA H200", torch.float64) is None


def test_an_accelerator_is_asked_for_its_name(monkeypatch):
    asked = []

    def module_of(device):
        asked.append(device.type)
        return SimpleNamespace(get_device_name=lambda: "Ascend910B3")

    monkeypatch.setattr(torch, "get_device_module", module_of)
    peak = peak_flops(torch.device("cuda"), torch.bfloat16)
    assert peak == peak_named("Ascend910B3", torch.bfloat16)
    assert asked == ["cuda"]


def test_a_cpu_is_measured_in_the_dtype_it_computes_in():
    peak = peak_flops(CPU, torch.float32)
    assert 1e8 < peak.flops < 1e14
    assert "torch.float32" in peak.source
    assert f"{torch.get_num_threads()} threads" in peak.source


def test_the_best_product_of_a_cpu_counts(monkeypatch):
    """1024 takes 0.2 s and then 0.1 s, 2048 takes 0.4 s: the latter is the fastest."""
    now, small = [0.0], iter([0.2, 0.1])
    products = []

    def multiply(left, right, *, out):
        products.append((len(left), out.dtype))
        now[0] += next(small, 0.1) if len(left) == 1024 else 0.4

    monkeypatch.setattr(peaks, "_CPU_SECONDS", 0.65)
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(peaks.time, "process_time", lambda: now[0])
    monkeypatch.setattr(peaks.torch, "get_num_threads", lambda: 1)
    peaks._measure_threads.cache_clear()
    monkeypatch.setattr(peaks.torch, "mm", multiply)
    peak = peak_flops(CPU, torch.bfloat16)
    assert products == [(size, torch.bfloat16) for size in (1024, 2048, 1024)]
    assert peak.flops == pytest.approx(2 * 2048**3 / 0.4)
    assert "product of 2048 x 2048 in torch.bfloat16" in peak.source
    peaks._measure_threads.cache_clear()
