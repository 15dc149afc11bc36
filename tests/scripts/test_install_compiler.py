"""Whether a compiler is asked for, played with stand-ins on the search path."""

import subprocess

import pytest


@pytest.fixture
def machine(root, tmp_path):
    """Adds stand-in programs and runs the script with only those to find."""
    tools = tmp_path / "bin"
    tools.mkdir()
    include = tmp_path / "include"
    include.mkdir()

    class Machine:
        asked = tmp_path / "asked"

        def add(self, name: str, body: str = "") -> None:
            script = tools / name
            script.write_text(f"#!/bin/sh\n{body}\n")
            script.chmod(0o755)

        def add_apt(self, *, works: bool) -> None:
            self.add("id", "echo 0")
            self.add("apt-get", f'echo "$@" >> {self.asked}\nexit {0 if works else 100}')

        def add_headers(self) -> None:
            (include / "Python.h").write_text("")

        def run(self) -> subprocess.CompletedProcess:
            self.add("python", f'case "$*" in *sysconfig*) echo {include} ;; *) echo 3.12 ;; esac')
            return subprocess.run(
                ["/bin/sh", root / "scripts" / "install_compiler.sh", tools / "python"],
                env={"PATH": str(tools)},
                capture_output=True,
                text=True,
                check=False,
            )

    return Machine()


def test_nothing_is_done_where_both_are_here(machine):
    machine.add("g++")
    machine.add_headers()
    machine.add_apt(works=True)
    result = machine.run()
    assert (result.returncode, result.stdout) == (0, "")
    assert not machine.asked.exists()


def test_what_is_missing_is_installed_where_that_is_allowed(machine):
    machine.add_apt(works=True)
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "installing g++ python3.12-dev" in result.stdout
    assert machine.asked.read_text() == "install -y -qq g++ python3.12-dev\n"


@pytest.mark.parametrize("with_apt", [False, True])
def test_what_cannot_be_installed_is_said_and_stops_nothing(machine, with_apt):
    machine.add_headers()
    if with_apt:
        machine.add_apt(works=False)
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "tests on the simulated NPU will be skipped" in result.stdout
    assert "apt-get install g++" in result.stdout
