"""Every fused kernel that ``mllm_npu/ops`` calls exists and takes the arguments that are passed."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import torch
from ops_calls import Signature, calls_below, complaints, read_signature

import mllm_npu

OPS = Path(mllm_npu.__file__).parent / "ops"
SIMULATED = Path(__file__).parents[1] / "npusim/torch_npu/schemas.txt"


def kernel_schemas() -> list[str]:
    """All schemas of the wheel's own kernels, without their namespace."""
    return [
        str(schema).removeprefix("npu::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("npu::")
    ]


schemas = kernel_schemas()
signatures: dict[str, list[Signature]] = defaultdict(list)
for schema in schemas:
    signatures[schema.partition("(")[0].partition(".")[0]].append(read_signature(schema))
calls = calls_below(OPS)
assert calls, f"no call of a fused kernel in {OPS}"
found = complaints(calls, signatures)
assert not found, "\n".join(found)
kernels = sorted({call.kernel for call in calls})
sys.stdout.write(f"{len(calls)} calls of {', '.join(kernels)}; {len(schemas)} schemas\n")

if SIMULATED.is_file():
    copied = SIMULATED.read_text(encoding="utf-8").splitlines()
    lines = [line for line in copied if line and not line.startswith("#")]
    other = [line for line in lines if line not in schemas]
    assert not other, "the simulation has other schemas than the wheel:\n" + "\n".join(other)
    sys.stdout.write(f"{len(lines)} schemas of the simulation are the wheel's\n")
