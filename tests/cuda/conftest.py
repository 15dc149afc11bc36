"""Tests on a CUDA device say why they are skipped where there is none.

With MLLM_NPU_CUDA_TESTS_DEVICE=cpu all of them run on the CPU, which shows that they are right
themselves.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mllm_npu.data.worlds.digits import make_digits

ROOT = Path(__file__).resolve().parents[2]
WORD = os.environ.get("MLLM_NPU_CUDA_TESTS_DEVICE", "cuda")

# What stages are trained with on a simulated NPU is trained here too.
spec = importlib.util.spec_from_file_location(
    "digits_stages", ROOT / "tests" / "npusim" / "groups" / "digits_stages.py"
)
stages = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = stages
spec.loader.exec_module(stages)


WARNINGS = (
    "Synchronization debug mode is a prototype",
    "Warning. Profiler clears events",  # torch until 2.12
)


def pytest_configure(config):
    for words in WARNINGS:
        config.addinivalue_line("filterwarnings", f"ignore:{words}")


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The device under test."""
    if WORD == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here; MLLM_NPU_CUDA_TESTS_DEVICE=cpu takes the CPU")
    return WORD


@pytest.fixture(scope="session", autouse=True)
def whole_float32(device):
    """Convolutions multiply float32 as it is, as a CPU does."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def command():
    """Runs Python in the project's folder in a process of its own; gives what it printed."""
    whole = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}

    def run(*args: str | Path, seconds: float = 200.0):
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=whole,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with a small world of digits."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data", scale=0.05)
    return folder


@pytest.fixture(scope="session")
def on_cpu(place) -> dict[str, Path]:
    """The three stages on the CPU."""
    return stages.train_on_cpu(place)
