"""Imports go down only, and the contract that says so covers the whole package."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def contract(root) -> dict:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    return settings["contracts"][0]


def lint(folder: Path) -> subprocess.CompletedProcess:
    """Run the linter on the package that lies in ``folder``."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder), "NO_COLOR": "1"},
    )


def named_layers(contract: dict) -> list[str]:
    return [name.strip(" ()") for layer in contract["layers"] for name in layer.split("|")]


def test_imports_go_down_only(root):
    result = lint(root)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_stands_on_a_floor(root, contract):
    folders = {path.parent.name for path in (root / "mllm_npu").glob("*/__init__.py")}
    modules = {path.stem for path in (root / "mllm_npu").glob("*.py")} - {"__init__"}
    assert folders | modules == set(named_layers(contract))
    assert contract["exhaustive"] is True


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors.py", "from mllm_npu import config"),
        ("device/memory.py", "from mllm_npu.models import interfaces"),
        ("data/__init__.py", "from mllm_npu.models import interfaces"),
    ],
)
def test_an_import_upwards_or_sideways_fails(root, tmp_path, module, line):
    shutil.copytree(root / "mllm_npu", tmp_path / "mllm_npu")
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / "mllm_npu" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "is not allowed to import" in result.stdout
