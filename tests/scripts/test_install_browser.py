"""Whether a browser is asked for, played with stand-ins on the search path."""

import subprocess

import pytest


@pytest.fixture
def run(root, tmp_path):
    """Runs the script with only some programs to find."""

    def run_with(**programs: str) -> subprocess.CompletedProcess:
        for name, body in programs.items():
            script = tmp_path / name.replace("_", "-")
            script.write_text(f"#!/bin/sh\n{body}\n")
            script.chmod(0o755)
        return subprocess.run(
            ["/bin/sh", root / "scripts" / "install_browser.sh"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_with


def test_nothing_is_done_where_one_is_here(run):
    result = run(chromium="", apt_get="exit 1", id="echo 0")
    assert (result.returncode, result.stdout) == (0, "")


def test_one_is_installed_where_that_is_allowed(run, tmp_path):
    result = run(apt_get=f'echo "$@" >> {tmp_path}/asked', id="echo 0")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "asked").read_text() == "install -y -qq chromium\n"


@pytest.mark.parametrize("programs", [{}, {"apt_get": "exit 1", "id": "echo 0"}])
def test_where_none_can_be_had_it_says_so_and_goes_on(run, programs):
    result = run(**programs)
    assert result.returncode == 0, result.stderr
    assert "will be skipped" in result.stdout
