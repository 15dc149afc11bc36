"""What the command line says of the device."""

import json
import subprocess
import sys

import torch


def test_the_doctor_describes_the_device(root, device):
    # What else is on the machine, such as an older package, is not asked here.
    done = subprocess.run(
        [sys.executable, "-m", "mllm_npu.cli", "doctor", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=100,
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    found = rows[f"device {device}"]
    assert found["state"] == "good"
    if device != "cpu":
        assert torch.get_device_module(device).get_device_name() in found["found"]
        assert rows[f"{device} number format"]["found"] == "computes in bfloat16"
        assert "peak" in "".join(rows)


def test_parity_agrees_between_the_cpu_and_the_device(place, device, command):
    typed = ["experiment=digits/mllm", f"world_dir={place / 'data'}", "initialise_from=null"]
    typed += ["threads=1", "dataset.tokens_per_pack=256", "parallel.compute_dtype=float32"]
    told = command("-m", "mllm_npu.cli", "doctor", "parity", "cpu", device, *typed)
    assert "agree: " in told
