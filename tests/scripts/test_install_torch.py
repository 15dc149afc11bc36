"""Which build of torch is asked for, played with a stand-in for pip."""

import subprocess

import pytest


@pytest.fixture
def install(root, tmp_path):
    """Runs the script; returns the requirements pip was asked for, and the process."""
    log = tmp_path / "asked"
    python = tmp_path / "python"
    tools = tmp_path / "bin"
    tools.mkdir()

    def run(*arguments: str, has_cpu_build: bool = True, accelerated: bool = False):
        refuse = "" if has_cpu_build else 'case "$last" in *+cpu) exit 1 ;; esac\n'
        python.write_text(
            f'#!/bin/sh\nfor last; do :; done\necho "$*" >> "{log}"\n{refuse}exit 0\n'
        )
        python.chmod(0o755)
        tool = tools / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{'echo GPU 0: one' if accelerated else 'exit 9'}\n")
        tool.chmod(0o755)
        process = subprocess.run(
            ["/bin/sh", root / "scripts" / "install_torch.sh", python, "2.13.0", *arguments],
            env={"PATH": f"{tools}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        return log.read_text().splitlines(), process

    return run


def test_without_an_accelerator_the_cpu_build_is_asked_for(install):
    asked, process = install()
    assert process.returncode == 0, process.stderr
    assert [line.split()[-1] for line in asked] == ["torch==2.13.0+cpu"]
    assert "-c constraints.txt" in asked[0]
    assert "index-url" not in asked[0]


def test_an_index_without_cpu_builds_gives_its_own(install):
    asked, process = install(has_cpu_build=False)
    assert process.returncode == 0
    assert [line.split()[-1] for line in asked] == ["torch==2.13.0+cpu", "torch==2.13.0"]
    assert "TORCH_INDEX" in process.stdout


def test_with_an_accelerator_the_plain_build_is_taken(install):
    asked, _ = install(accelerated=True)
    assert [line.split()[-1] for line in asked] == ["torch==2.13.0"]


def test_a_given_index_is_passed_on(install):
    asked, _ = install("file:///wheels")
    assert "--extra-index-url file:///wheels torch==2.13.0+cpu" in asked[0]
