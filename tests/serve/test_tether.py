"""A program ends with the process that started it, and before it where that one has gone."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mllm_npu.serve import tether

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties processes")

STARTER = """
import subprocess, sys, time
from mllm_npu.serve.tether import tethered
part = subprocess.Popen(tethered([sys.executable, "-c", "import time; time.sleep(60)"]))
print(part.pid, flush=True)
time.sleep(60)
"""


def start(parent, *command):
    """The launcher, told that ``parent`` starts it."""
    words = [*tether.tethered(command)]
    words[words.index(str(os.getpid()))] = str(parent)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def has_ended(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_a_program_is_killed_with_its_parent():
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    with starter:
        part = int(starter.stdout.readline())
        deadline = time.monotonic() + 30
        while b"tether" in Path(f"/proc/{part}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        assert not has_ended(part)
        starter.kill()
        starter.wait()
    while not has_ended(part):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_launcher_becomes_the_program():
    program = "import os, sys; print(os.getpid(), os.environ.get('WORD'), sys.argv[1:])"
    command = tether.tethered([sys.executable, "-c", program, "--port", "1"])
    part = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "WORD": "there"}
    )
    said, _ = part.communicate(timeout=30)
    assert said.split(maxsplit=2) == [str(part.pid), "there", "['--port', '1']\n"]


def test_a_program_whose_parent_has_gone_is_not_started():
    part = start(2**22, sys.executable, "-c", "print('started')")
    said, _ = part.communicate(timeout=30)
    assert part.returncode == -signal.SIGKILL
    assert said == ""


def test_a_program_that_is_not_there_is_told():
    part = start(os.getpid(), "/nowhere/program")
    _, said = part.communicate(timeout=30)
    assert part.returncode == tether.EXIT_NO_PROGRAM
    assert said == "/nowhere/program cannot be started: No such file or directory\n"


def test_a_system_that_refuses_is_told_and_the_program_runs(monkeypatch, capsys):
    class Refuses:
        def prctl(self, *_):
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(tether.ctypes, "CDLL", lambda *_, **__: Refuses())
    tether.tie_to(1)
    said = capsys.readouterr().err
    assert said.startswith("this process is not tied to 1, the system says: ")


def test_another_system_starts_the_program_as_it_is(monkeypatch):
    monkeypatch.setattr(tether.sys, "platform", "darwin")
    monkeypatch.setattr(tether.ctypes, "CDLL", None)
    tether.tie_to(1)
