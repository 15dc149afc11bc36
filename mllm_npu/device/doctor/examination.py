"""Put the checks of one machine in order; a check that fails becomes a row that says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mllm_npu.device.doctor import ascend, devices, environment, installation, machine
from mllm_npu.device.doctor.check import Check, Examine, State, examine


def run_checks(folder: Path = Path()) -> tuple[Check, ...]:
    """Look at everything a run on this machine depends on.

    Args:
        folder: where runs will be written; its disk is measured.
    """
    looks: Sequence[tuple[str, Examine, State]] = (
        ("installation", installation.examine_installation, "bad"),
        ("one accelerator", devices.examine_conflict, "bad"),
        ("torchvision", devices.examine_torchvision, "notice"),
        ("threads", machine.examine_threads, "notice"),
        ("memory", machine.examine_memory, "notice"),
        ("disk", partial(machine.examine_disk, folder), "notice"),
        ("shared memory", machine.examine_shared_memory, "notice"),
        ("open files", machine.examine_open_files, "notice"),
        ("CANN", ascend.examine_cann, "notice"),
        ("driver", ascend.examine_driver, "notice"),
        ("device files", ascend.examine_device_files, "notice"),
        ("npu-smi", ascend.examine_npus, "notice"),
        ("devices", devices.examine_devices, "bad"),
        ("environment", _look_at_environment, "notice"),
    )
    return tuple(check for name, look, state in looks for check in examine(name, look, state=state))


def _look_at_environment() -> tuple[Check, ...]:
    return environment.examine_environment(os.environ, on_npu=ascend.is_ascend())
