"""Run Python programs in processes whose accelerator is the simulated NPU.

A process has one accelerator for its whole life, so tests start another process for it:

    result = run_simulated("-m", "pytest", "groups/sim_basics.py")
    result = run_simulated_ranks("groups/sim_ranks.py", num_ranks=2)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GROUPS = FOLDER / "groups"
PROJECT = FOLDER.parents[1]
SECONDS = 280.0
"""Below the time a test has, so that what was printed is shown."""
FORBIDDEN = ("float64", "fallbacks", "cuda")
"""What a simulated process refuses unless it is told otherwise; see `simulation.RULES`."""


def missing() -> str | None:
    """Why nothing can be simulated here, None where it can."""
    candidates = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "c++", "clang++"]
    if not any(shutil.which(name) for name in candidates):
        return "the simulated NPU needs a C++ compiler: install g++, or set CXX"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "the simulated NPU needs Python's own headers: install python3-dev"
    return None


def environment(
    *, forbid: Sequence[str] = FORBIDDEN, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process whose ``import torch`` finds the simulated NPU.

    Args:
        forbid: rules that are on from the start.
        more: variables that are added last.
    """
    path = os.pathsep.join([str(FOLDER), str(GROUPS), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "PYTHONPATH": path.rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "1",
        "NPU_SIM_FORBID": ",".join(forbid),
        "NPU_SIM_CUDA_ROOTS": str(PROJECT / "mllm_npu"),
        **(more or {}),
    }


def run_simulated(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    forbid: Sequence[str] = FORBIDDEN,
    timeout: float = SECONDS,
    cwd: Path = FOLDER,
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments beside a simulated NPU.

    Args:
        args: of the interpreter: a script and its arguments, ``-m`` and a module, ``-c`` and code.
        env: variables that are added.
        forbid: what the process refuses.
        timeout: seconds after which it is killed.
        cwd: where it runs.

    Returns:
        With what it printed; standard error is part of ``stdout``.
    """
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env=environment(forbid=forbid, more=env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_simulated_ranks(
    script: str | Path, *args: str, num_ranks: int = 2, **settings
) -> subprocess.CompletedProcess[str]:
    """Run a script on several ranks, one simulated NPU each; see ``run_simulated``."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return run_simulated(*launcher, script, *args, **settings)


def run_group(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in groups/<name>.py."""
    return run_tests(GROUPS / f"{name}.py", "--confcutdir", GROUPS, *options)


def run_tests(path: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a file of tests with pytest and the project's settings."""
    settings = ["-c", PROJECT / "pyproject.toml", "--rootdir", PROJECT]
    quiet = ["-q", "-p", "no:cacheprovider", "--no-header"]
    return run_simulated("-m", "pytest", *settings, *quiet, path, *options)


if __name__ == "__main__":
    done = run_simulated(*sys.argv[1:], cwd=Path.cwd())
    sys.stdout.write(done.stdout)
    sys.exit(done.returncode)
