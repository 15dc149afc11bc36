"""The choice of a Python, played with stand-ins on the search path."""

import subprocess

import pytest


@pytest.fixture
def machine(root, tmp_path):
    """Adds stand-in interpreters and runs the script with only those (and coreutils) to find."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "rm").symlink_to("/bin/rm")

    class Machine:
        folder = tmp_path / "venv"

        def add(self, name: str, version: str, *, has_venv: bool = True) -> None:
            minor = int(version.split(".")[1])
            script = tools / name
            script.write_text(
                "#!/bin/sh\n"
                'case "$*" in\n'
                f"  *version_info*%*|*%*version_info*) echo {version} ;;\n"
                f"  *version_info*) exit {0 if minor >= 11 else 1} ;;\n"
                f"  *ensurepip*) exit {0 if has_venv else 1} ;;\n"
                f"  '-m venv '*) : > \"$3\" ;;\n"
                "esac\n"
            )
            script.chmod(0o755)

        def run(self, **environment: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                ["/bin/sh", root / "scripts" / "make_venv.sh", self.folder],
                env={"PATH": str(tools), **environment},
                capture_output=True,
                text=True,
                check=False,
            )

    return Machine()


def test_takes_the_first_that_is_new_enough(machine):
    machine.add("python3.12", "3.12")
    machine.add("python3", "3.9")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "with python3.12 (3.12)" in result.stdout
    assert machine.folder.exists()


def test_plain_python3_will_do(machine):
    machine.add("python3", "3.13")
    assert "with python3 (3.13)" in machine.run().stdout


def test_a_named_python_comes_first(machine):
    machine.add("python3.11", "3.11")
    machine.add("mine", "3.14")
    assert "with mine (3.14)" in machine.run(PYTHON="mine").stdout


def test_an_old_python_is_refused_with_what_was_found(machine):
    machine.add("python3", "3.9")
    result = machine.run()
    assert result.returncode == 2
    assert "3.11 or newer is needed, found: python3(3.9)" in result.stderr
    assert "apt install python3" in result.stderr
    assert not machine.folder.exists()


def test_no_python_at_all(machine):
    result = machine.run()
    assert result.returncode == 2
    assert "found: none" in result.stderr


def test_a_missing_venv_module_names_the_package(machine):
    machine.add("python3.11", "3.11", has_venv=False)
    result = machine.run()
    assert result.returncode == 2
    assert "apt install python3.11-venv" in result.stderr


def test_another_python_with_venv_is_taken_instead(machine):
    machine.add("python3.11", "3.11", has_venv=False)
    machine.add("python3.12", "3.12")
    assert "with python3.12 (3.12)" in machine.run().stdout
