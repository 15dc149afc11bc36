"""Memory figures come from the right place and in GiB."""

import pytest
import torch

from mllm_npu.device import memory
from mllm_npu.device.memory import (
    accelerator_peak_gib,
    available_gib,
    machine_gib,
    peak_rss_gib,
    rss_gib,
)


def test_the_peak_rises_with_what_is_held_and_stays():
    before = peak_rss_gib()
    held = torch.ones(64, 1024, 1024)
    while_held = rss_gib()
    assert peak_rss_gib() >= while_held > 0.25
    del held
    assert peak_rss_gib() >= max(before, while_held) - 1e-3


def test_a_table_row_is_read_in_bytes(tmp_path):
    table = tmp_path / "status"
    table.write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert memory._field_bytes(table, "VmHWM") == 2048 * 1024
    assert memory._field_bytes(table, "VmRSS") == 1024 * 1024
    assert memory._field_bytes(table, "VmSwap") is None
    assert memory._field_bytes(tmp_path / "absent", "VmHWM") is None


def test_without_the_kernels_table_the_system_call_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    assert 0.05 < peak_rss_gib() < 64
    assert rss_gib() == pytest.approx(peak_rss_gib(), rel=0.01)


def test_a_control_group_cuts_the_machine(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_GROUP_LIMIT", limit)
    whole = machine_gib()
    limit.write_text("max\n")
    assert machine_gib() == whole
    limit.write_text(f"{1 << 29}\n")
    assert machine_gib() == 0.5
    assert available_gib() <= 0.5


def test_available_memory_falls_back_to_all_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "absent")
    assert available_gib() == machine_gib()


def test_the_accelerators_peak_is_torchs_own_count(monkeypatch):
    asked = []

    def max_memory_allocated(device: torch.device) -> int:
        asked.append(device)
        return 3 << 29

    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", max_memory_allocated)
    assert accelerator_peak_gib(torch.device("cpu")) == 0.0
    assert asked == []
    assert accelerator_peak_gib(torch.device("cuda")) == 1.5
