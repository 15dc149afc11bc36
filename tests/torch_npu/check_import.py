"""The wheel loads with torch, and has the parts of its interface that the package uses."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import mllm_npu
from mllm_npu.device.doctor.devices import examine_accelerator
from mllm_npu.device.memory import MemoryGauge
from mllm_npu.device.platform import available_platforms, num_devices, pick_device, platform_of

PACKAGE = Path(mllm_npu.__file__).parent
OF_MODULE = (
    "device_count",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "is_bf16_supported",
    "manual_seed_all",
    "set_rng_state",
)
"""Functions of torch.npu, reached by torch.get_device_module."""


def accelerator_names() -> set[str]:
    """What the package takes from torch.accelerator."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    attributes = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    ]
    return {node.attr for node in attributes if ast.unparse(node.value) == "torch.accelerator"}


assert "torch_npu" in sys.modules, "import torch has not loaded it"
assert torch.accelerator.current_accelerator() == torch.device("npu")
device = pick_device("auto")
platform = platform_of(device)
assert device.type == "npu"
assert [row.name for row in available_platforms()] == ["npu", "cpu"]
assert num_devices(device) == 8
backend = dist.get_default_backend_for_device(device)
assert backend == platform.collective_backend, backend

missing = [name for name in OF_MODULE if not hasattr(torch.npu, name)]
assert not missing, missing
used = accelerator_names()
assert len(used) >= 5, used
missing = [name for name in used if not hasattr(torch.accelerator, name)]
assert not missing, missing

rows = {check.name: check for check in examine_accelerator(platform)}
assert all(check.state == "good" for check in rows.values()), rows
assert rows["npu peak"].figures["peak_flops"] > 1e14, rows

gauge = MemoryGauge(device)
assert gauge.limit_gib() == 64.0
held = torch.empty(1 << 20, device=device)
assert gauge.now_gib() * 2**30 >= held.nbytes
sys.stdout.write(f"{rows['device npu'].found}, torch.accelerator.{{{', '.join(sorted(used))}}}\n")
