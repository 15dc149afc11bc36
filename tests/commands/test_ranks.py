"""The first process speaks, an error is one line with its rank, and all leave together."""

import signal

import pytest
from launching import Launch
from play_commands import leave_late

from mllm_npu.cli import EXIT_REFUSED
from mllm_npu.commands import ranks
from mllm_npu.errors import ConfigError, TrainingError


@pytest.fixture
def rank(monkeypatch):
    """Sets what torchrun sets."""

    def set_rank(number, size=2):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", str(size))

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return set_rank


def test_the_first_rank_speaks_and_a_single_process_too(rank, capsys):
    ranks.say("alone")
    for number in range(3):
        rank(number, 3)
        ranks.say(f"rank {number}")
        assert ranks.is_main_rank() is (number == 0)
    assert capsys.readouterr().err.split("\n") == ["alone", "rank 0", ""]


def test_one_process_alone_raises_its_refusals(rank):
    with pytest.raises(ConfigError, match="no"), ranks.leaving_together():
        raise ConfigError("no")
    rank(0, 1)
    with pytest.raises(ConfigError), ranks.leaving_together():
        raise ConfigError("no")


@pytest.fixture
def left(monkeypatch):
    """How the process would have ended."""
    codes = []

    def end(code):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(ranks.os, "_exit", end)
    return codes


def test_of_several_an_error_ends_the_process_with_one_line_and_its_rank(rank, left, capsys):
    rank(1)
    with pytest.raises(SystemExit), ranks.leaving_together():
        raise TrainingError("it is\n  gone")
    assert left == [2]
    assert capsys.readouterr().err == "[rank 1] TrainingError: it is gone\n"


def test_a_bug_keeps_its_traceback(rank, left):
    rank(1)
    with pytest.raises(ZeroDivisionError), ranks.leaving_together():
        raise ZeroDivisionError
    assert left == []


def test_several_wait_for_each_other_at_the_end_and_one_does_not(rank, monkeypatch):
    class Mesh:
        left = 0

        def leave(self):
            self.left += 1

    mesh = Mesh()
    monkeypatch.setattr(ranks, "later", lambda name: mesh if name == "distributed.mesh" else None)
    with ranks.leaving_together():
        pass
    assert mesh.left == 0
    rank(0)
    with ranks.leaving_together():
        assert mesh.left == 0
    assert mesh.left == 1


@pytest.mark.slow
def test_a_rank_that_fails_is_gone_at_once_and_none_leaves_before_the_last_one(tmp_path):
    launched = Launch(leave_late, 2, tmp_path, fails=None)
    times = launched.results()
    begun = max(begin for begin, _ in times)
    assert all(end >= begun for _, end in times)
    launched = Launch(leave_late, 2, tmp_path / "failing", fails=1)
    launched.processes[1].join(30)
    assert launched.processes[1].exitcode == 2
    assert "[rank 1] TrainingError: rank 1 was told to fail\n" in launched.log(1)
    launched.signal(0, signal.SIGKILL)  # it may wait for the other one
    codes = launched.end()
    assert codes[0] in (1, -signal.SIGKILL)
    assert codes[1] == 2


def test_the_code_is_the_one_of_a_refusal():
    assert ranks.EXIT_FAILED == EXIT_REFUSED
