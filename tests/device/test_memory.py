"""Memory figures come from the right place and in GiB."""

import mmap
import resource

import pytest
import torch

from mllm_npu.device import memory
from mllm_npu.device.memory import (
    MemoryGauge,
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


CPU, GADGET = torch.device("cpu"), torch.device("cuda")


def hold(mebibytes):
    """Memory that goes back to the system at once when it is closed, unlike the allocator's."""
    held = mmap.mmap(-1, mebibytes << 20)
    held.write(b"1" * (mebibytes << 20))
    return held


def test_a_gauge_forgets_the_peak_of_before_and_the_process_does_not():
    if not memory._CLEAR.exists():
        pytest.skip("this system's peak cannot be forgotten")
    gauge = MemoryGauge(CPU)
    with hold(400):
        high = gauge.now_gib()
    gauge.restart()
    low = gauge.peak_gib()
    assert low < high - 0.3
    with hold(150):
        while_held = gauge.now_gib()
    # The kernel counts in steps of its own.
    assert gauge.peak_gib() + 0.01 >= while_held > low + 0.1
    assert gauge.peak_gib() < high
    assert peak_rss_gib() + 0.01 >= high


def test_where_the_peak_cannot_be_forgotten_it_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    gauge = MemoryGauge(CPU)
    before = gauge.peak_gib()
    gauge.restart()
    assert gauge.peak_gib() >= before > 0


def test_a_machine_offers_what_is_free_and_what_is_held_here(monkeypatch):
    monkeypatch.setattr(memory, "available_gib", lambda: 5.0)
    monkeypatch.setattr(memory, "rss_gib", lambda: 2.0)
    gauge = MemoryGauge(CPU)
    assert (gauge.limit_gib(), gauge.now_gib(), gauge.name) == (7.0, 2.0, "this machine")


def test_an_address_space_offers_what_is_not_mapped_for_other_things(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text(f"VmSize:\t{3 << 20} kB\nVmRSS:\t{1 << 20} kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    monkeypatch.setattr(memory, "available_gib", lambda: 100.0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 30, 8 << 30))
    assert MemoryGauge(CPU).limit_gib() == 8.0 - (3.0 - 1.0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert MemoryGauge(CPU).limit_gib() == 101.0


def test_an_accelerator_is_asked_for_its_own_numbers(monkeypatch):
    asked = []
    answers = {
        "get_memory_info": (1 << 30, 16 << 30),
        "memory_allocated": 3 << 30,
        "max_memory_allocated": 5 << 30,
        "reset_peak_memory_stats": None,
    }
    for name, answer in answers.items():

        def ask(device, name=name, answer=answer):
            asked.append((name, device))
            return answer

        monkeypatch.setattr(torch.accelerator, name, ask)
    gauge = MemoryGauge(GADGET)
    found = (gauge.limit_gib(), gauge.now_gib(), gauge.restart(), gauge.peak_gib())
    assert found == (16.0, 3.0, None, 5.0)
    assert gauge.name == GADGET.type
    assert {name for name, _ in asked} == set(answers)
    assert {device for _, device in asked} == {GADGET}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("whatever it says"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 8 bytes. Error code 12"),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
)  # fmt: skip
def test_errors_that_say_memory_is_missing_are_known(error):
    assert MemoryGauge(CPU).is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory"), KeyError("memory")],
)
def test_other_errors_are_not_taken_for_that(error):
    assert not MemoryGauge(CPU).is_out_of_memory(error)


def test_the_allocators_own_refusal_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 56, dtype=torch.uint8)
    assert MemoryGauge(CPU).is_out_of_memory(caught.value)
