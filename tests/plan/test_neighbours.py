import os
import subprocess
import sys
import time

import pytest

from mllm_npu.device.process import usable_cores
from mllm_npu.plan.neighbours import neighbours, work


def test_one_process_has_none():
    with neighbours(1) as count:
        assert count == 0


def test_others_compute_while_it_is_open(monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with neighbours(2) as count:
        assert count == 1
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_an_error_inside_ends_them_too(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **o: started.append(popen(*a, **o)) or started[-1]
    )
    with pytest.raises(KeyError), neighbours(2):
        raise KeyError
    assert started[0].poll() is not None


def test_there_are_never_more_than_change_anything(monkeypatch):
    class Silent:
        stdout = open(os.devnull, "rb")  # noqa: SIM115

        def kill(self):
            pass

        wait = kill

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Silent())
    with neighbours(10_000) as count:
        assert count == 2 * usable_cores() - 1


def test_whoever_has_lost_its_parent_ends(capsys):
    begin = time.monotonic()
    work(parent=-1)
    assert time.monotonic() - begin < 5
    assert capsys.readouterr().out == "ready\n"
    assert sys.executable
