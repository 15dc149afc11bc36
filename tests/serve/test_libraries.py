"""Without the libraries of serving, whatever is started says in one line what to install."""

import subprocess
import sys
import tomllib

import pytest

from mllm_npu.cli import main
from mllm_npu.errors import ConfigError
from mllm_npu.serve import libraries

HIDDEN = """
import runpy, sys
sys.modules[{module!r}] = None
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without(module, root, *argv):
    """Run a file of the package as a person does, in an environment without one module."""
    code = HIDDEN.format(module=module, argv=[str(root / argv[0]), *argv[1:]])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("file", ["controller", "worker"])
@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "httpx"])
def test_a_file_that_is_run_says_what_to_install(file, name, root):
    done = run_without(name, root, f"mllm_npu/serve/{file}.py")
    assert done.returncode == 2
    assert done.stderr == (
        f"ConfigError: Serving was asked for, {name} is not installed. Install what it needs: "
        "pip install 'mllm-npu[serve]'\n"
    )
    assert done.stdout == ""


def test_the_help_of_a_worker_needs_no_library(root):
    done = run_without("fastapi", root, "mllm_npu/serve/worker.py", "--help")
    assert done.returncode == 0
    assert "--request-seconds" in done.stdout


def test_the_command_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "ConfigError: Serving was asked for, prometheus-client, python-multipart"
    )
    assert said.count("\n") == 1


def test_nothing_is_missing_here():
    libraries.check_libraries()
    libraries.require_libraries()


def test_the_extra_brings_what_is_looked_for(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extra = [line.partition(">")[0] for line in project["optional-dependencies"]["serve"]]
    assert extra == list(libraries.LIBRARIES)


def test_all_that_is_missing_is_told_at_once(monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="fastapi, uvicorn, prometheus-client, python-multipart"):
        libraries.check_libraries()
