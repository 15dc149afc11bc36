"""The benchmark of an accelerator's step in miniature: both sides learn the same, on the CPU."""

import json
import subprocess
import sys

import pytest


def run(root, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu_step.py", "--json", *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=root, timeout=200
    )


@pytest.mark.slow
def test_both_sides_learn_the_same(root):
    done = run(root, "--small", "--device", "cpu", "--rounds", "3", "--warm-up", "1")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["loss_difference"] < 5e-3
    # Of models this small times say nothing.
    assert line["speedup_over_padded"] > 0.2
    assert 0 < line["mfu_padded"] < 1
    assert 0 < line["mfu"] < 1
    assert line["rows_padded"] in (4, 8, 16)
    assert line["attention"] == ["rows"]
    assert min(line["step_gib"], line["step_gib_padded"]) >= 0
    assert line["machine"]["device"] == "cpu"


def test_on_a_cpu_it_asks_for_small_sizes(root):
    done = run(root, "--device", "cpu")
    assert done.returncode == 2
    assert "Give --small" in done.stderr
