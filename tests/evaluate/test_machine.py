import torch

from mllm_npu.evaluate.machine import _processor_name, describe_machine, list_versions


def test_the_machine_is_described_in_plain_values():
    machine = describe_machine(torch.device("cpu"))
    assert machine["device"] == "cpu"
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert all(isinstance(value, str | int | float) for value in machine.values())


def test_versions_are_listed_and_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("mllm_npu.evaluate.machine.PACKAGES", ("torch", "no-such-package"))
    versions = list_versions()
    assert versions["torch"] == torch.__version__
    assert versions["no-such-package"] == "not installed"
    assert set(versions) == {"python", "mllm-npu", "torch", "no-such-package"}


def test_the_processor_is_named_where_the_system_tells(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Fast One 9\nflags\t: a b\n")
    assert _processor_name(file) == "Fast One 9"
    assert _processor_name(tmp_path / "absent")
