"""Tests here start processes with a simulated NPU; where it cannot be built they say so."""

import importlib.util
import sys
from pathlib import Path

import pytest

collect_ignore = ["groups"]  # for the processes that are started

spec = importlib.util.spec_from_file_location("npusim_run", Path(__file__).with_name("run.py"))
run = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = run
spec.loader.exec_module(run)


@pytest.fixture(scope="session")
def simulated():
    """The module run.py, with the extension compiled."""
    if reason := run.missing():
        pytest.skip(reason)
    built = run.run_simulated("-c", "import torch; print(torch.npu.is_available())")
    assert built.stdout == "True\n", built.stdout
    return run
