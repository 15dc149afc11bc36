"""Processes find the simulated NPU where they should, and nowhere else."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

KNOWS = "import sys, torch; print(torch.accelerator.is_available(), 'torch_npu' in sys.modules)"


def test_this_process_has_no_simulated_npu():
    assert "torch_npu" not in sys.modules
    assert not any("npusim" in path for path in sys.path)


def test_torch_finds_it_by_itself(simulated):
    assert simulated.run_simulated("-c", KNOWS).stdout == "True True\n"


def test_torch_can_be_told_not_to_look_for_it(simulated):
    off = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    assert simulated.run_simulated("-c", KNOWS, env=off).stdout == "False False\n"
    first = "import torch_npu, torch; print(torch.ones(2, device='npu').sum().item())"
    for env in ({}, off):
        assert simulated.run_simulated("-c", first, env=env).stdout == "2.0\n"


def test_the_package_that_is_found_by_name_is_the_simulated_one(simulated):
    code = (
        "import importlib.metadata as m, importlib.util as u; "
        "print(m.version('torch_npu'), u.find_spec('torch_npu').origin)"
    )
    version, origin = simulated.run_simulated("-c", code).stdout.split()
    assert version == "2.13.0+sim"
    assert origin == str(simulated.FOLDER / "torch_npu" / "__init__.py")


def test_rules_and_sizes_come_from_the_environment(simulated):
    code = (
        "import torch; print(torch.npu.device_count(), torch.npu.mem_get_info()[1] >> 30)\n"
        "try: torch.ones(1, device='npu', dtype=torch.float64)\n"
        "except RuntimeError as error: print(str(error)[:18])"
    )
    env = {"NPU_SIM_DEVICES": "2", "NPU_SIM_MEMORY_GIB": "3"}
    assert simulated.run_simulated("-c", code, env=env).stdout == "2 3\nfloat64 or complex\n"
    assert simulated.run_simulated("-c", code, env=env, forbid=()).stdout == "2 3\n"
    wrong = simulated.run_simulated("-c", "import torch_npu", forbid=("sync",))
    assert "NPU_SIM_FORBID=sync knows float64, fallbacks, syncs, cuda." in wrong.stdout


def test_calls_of_cuda_are_refused_from_the_package_only(simulated, tmp_path):
    (tmp_path / "guilty.py").write_text("import torch\ntorch.cuda.empty_cache()\n")
    roots = {"NPU_SIM_CUDA_ROOTS": str(tmp_path)}
    result = simulated.run_simulated(tmp_path / "guilty.py", env=roots)
    assert "torch.cuda.empty_cache was called with an NPU" in result.stdout
    assert simulated.run_simulated(tmp_path / "guilty.py").stdout == ""


def test_a_process_writes_what_it_did(simulated, tmp_path):
    env = {"NPU_SIM_STATS": str(tmp_path / "stats-{rank}.json"), "RANK": "1"}
    code = "import torch; torch.ones(2, device='npu').sum().item()"
    assert simulated.run_simulated("-c", code, env=env).returncode == 0
    stats = json.loads((tmp_path / "stats-1.json").read_text())
    assert stats["operators"]["aten::_local_scalar_dense"] == 1
    assert len(stats["syncs"]) == 1


def test_processes_that_start_together_build_once(simulated, tmp_path):
    """A stand-in for the compiler notes each call and copies what was built before."""
    where = "from torch_npu import extension; print(extension.build_folder())"
    library = f"{simulated.run_simulated('-c', where).stdout.strip()}/npusim.so"
    calls = str(tmp_path / "calls")
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!{sys.executable}\n"
        "import shutil, sys\n"
        f"with open({calls!r}, 'a') as calls: calls.write('x')\n"
        f"shutil.copy({library!r}, sys.argv[sys.argv.index('-o') + 1])\n"
    )
    compiler.chmod(0o755)
    env = {"CXX": str(compiler), "NPU_SIM_BUILD": str(tmp_path / "build")}
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: simulated.run_simulated("-c", KNOWS, env=env), range(2)))
    assert [result.stdout for result in results] == ["True True\n"] * 2
    assert (tmp_path / "calls").read_text() == "x"


@pytest.mark.parametrize(
    ("compiler", "words"),
    [("no-such-compiler", "there is no C++ compiler"), ("false", "does not compile with")],
)
def test_a_missing_or_broken_compiler_is_named(simulated, tmp_path, compiler, words):
    env = {"CXX": compiler, "NPU_SIM_BUILD": str(tmp_path)}
    result = simulated.run_simulated("-c", "import torch_npu", env=env)
    assert result.returncode == 1
    assert words in result.stdout
    assert not list(tmp_path.rglob("*.so"))


def test_it_says_why_nothing_can_be_simulated(simulated, monkeypatch):
    assert simulated.missing() is None
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(simulated.sysconfig, "get_path", lambda name: "/no/such/folder")
        assert simulated.missing().endswith("install python3-dev")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert simulated.missing() == "the simulated NPU needs a C++ compiler: install g++, or set CXX"


def test_a_program_can_be_run_from_the_command_line(simulated):
    command = [sys.executable, simulated.FOLDER / "run.py", "-c", KNOWS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "True True\n")
