"""A plan's memory and what training takes for real, at the smallest size: within five per cent."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 0.05
"""Part of the measured peak by which a plan may be off."""

pytestmark = pytest.mark.slow


def load(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield load("plan_accuracy")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("number", [0, 1])
def test_planned_and_measured_memory(benchmark, number):
    case = benchmark.SMALLEST[number]
    if case.device == "npu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        pytest.skip("the simulated NPU needs a C++ compiler: install g++")
    found = benchmark.measure_case(case, steps=1)
    assert found["ranks"] == number + 1
    assert found["memory_error"] <= MOST
    assert found["planned_steady"] == pytest.approx(found["measured_steady"], rel=MOST)
    assert found["planned_peak"] > 2 * found["planned_steady"]
