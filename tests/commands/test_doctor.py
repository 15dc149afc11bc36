"""The doctor as people and machines call it: verdict, table, JSON, exit codes."""

import json
import subprocess
import sys

import pytest

from mllm_npu.cli import main
from mllm_npu.commands import doctor
from mllm_npu.commands.doctor import fill_seconds
from mllm_npu.device.doctor.check import Check

GOOD = Check(name="disk", found="77 GiB free")
BAD = Check(name="torch", state="bad", found="2.8.1", advice="pip install torch")
ASIDE = Check(name="env TASK_QUEUE_ENABLE", found="not set, so 1", is_aside=True)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # What the command sets must not outlive the test.
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


@pytest.fixture
def machine(monkeypatch):
    """Says which rows the machine has."""

    def have(*rows: Check) -> None:
        monkeypatch.setattr(doctor, "look_at_machine", lambda: rows)

    return have


@pytest.mark.parametrize(
    ("typed", "filled"),
    [
        ([], []),
        (["--burn-in"], ["--burn-in", "60"]),
        (["--burn-in", "5"], ["--burn-in", "5"]),
        (["--burn-in", "--json"], ["--burn-in", "60", "--json"]),
        (["--burn-in", "-5"], ["--burn-in", "-5"]),
        (["--json", "--burn-in=7"], ["--json", "--burn-in=7"]),
    ],
)
def test_the_seconds_may_be_left_out(typed, filled):
    assert fill_seconds(typed) == filled


def test_a_good_machine_is_exit_code_zero(machine, capsys):
    machine(GOOD, ASIDE)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Ready: 2 checks, 0 notices, nothing bad."
    assert not any("TASK_QUEUE_ENABLE" in line for line in lines)


def test_a_bad_row_is_exit_code_one_and_says_what_to_do(machine, capsys):
    machine(GOOD, BAD)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Not ready: torch must be mended first")
    assert any(line.strip() == "-> pip install torch" for line in lines)


def test_all_rows_are_shown_on_request(machine, capsys):
    machine(GOOD, ASIDE)
    assert main(["doctor", "--all"]) == 0
    assert "TASK_QUEUE_ENABLE" in capsys.readouterr().out


def test_for_machines_it_is_one_object_with_all_rows(machine, capsys):
    machine(GOOD, ASIDE, BAD)
    assert main(["doctor", "--json"]) == 1
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    report = json.loads(out)
    assert report["verdict"] == "bad"
    assert [row["name"] for row in report["checks"]] == [GOOD.name, ASIDE.name, BAD.name]


def test_what_a_library_prints_while_it_is_imported_does_not_stand_before_the_object(
    monkeypatch, capsys
):
    def look():
        sys.stdout.write("Warning: a variable is not set.\n")
        return (GOOD,)

    monkeypatch.setattr(doctor, "look_at_machine", look)
    assert main(["doctor", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["verdict"] == "good"
    assert shown.err == "Warning: a variable is not set.\n"


def test_this_machine_is_ready(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] in ("good", "notice")
    assert {"python", "torch", "device cpu"} <= {row["name"] for row in report["checks"]}


def test_the_help_has_examples(capsys):
    assert main(["doctor", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "mllm-npu doctor --ranks 8 --burn-in" in shown
    assert "[SECONDS]" in shown
    assert "skip-machine" not in shown


@pytest.mark.parametrize(
    "typed", [["--ranks", "1"], ["--burn-in", "0"], ["--burn-in", "-3"], ["--timeout", "0"]]
)
def test_what_makes_no_sense_is_refused(typed, capsys):
    assert main(["doctor", *typed]) == 2
    assert capsys.readouterr().err.startswith("UsageError: ")


def test_ranks_are_not_started_inside_a_rank(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor", "--ranks", "2"]) == 2
    assert "Leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["2", "many"])
def test_a_number_of_ranks_without_a_rank_is_no_launcher(machine, monkeypatch, size, capsys):
    machine(GOOD)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["doctor"]) == 0


def test_one_second_of_burn_in(machine, capsys):
    machine(GOOD)
    assert main(["doctor", "--burn-in", "1", "--json"]) == 0
    shown = capsys.readouterr()
    row = json.loads(shown.out)["checks"][-1]
    assert row["name"] == "burn-in"
    assert row["figures"]["rounds"] >= 1
    assert "burn-in: 1 s on cpu" in shown.err


def test_a_device_that_fails_in_the_burn_in_is_a_bad_row(machine, monkeypatch, capsys):
    from mllm_npu.device.doctor import burn_in

    def fail(*arguments, **options):
        raise RuntimeError("out of memory")

    machine(GOOD)
    monkeypatch.setattr(burn_in, "burn_in", fail)
    assert main(["doctor", "--burn-in", "1", "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["checks"][-1]
    assert (row["name"], row["state"]) == ("burn-in", "bad")
    assert "out of memory" in row["found"]


def test_more_ranks_than_accelerators_are_refused_in_a_row(machine, monkeypatch, capsys):
    import torch

    from mllm_npu.device import platform

    machine(GOOD)
    monkeypatch.setattr(platform, "pick_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(platform, "num_devices", lambda device: 4)
    assert main(["doctor", "--ranks", "8", "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["checks"][-1]
    assert row["advice"] == "give --ranks 4"


def test_a_rank_that_fails_is_a_bad_row(machine, monkeypatch, capsys):
    from mllm_npu.distributed import local_ranks

    outcome = local_ranks.Outcome(output="", code=None, complaints=("rank 1 was ended by SIGKILL",))
    machine(GOOD)
    monkeypatch.setattr(local_ranks, "run_local_ranks", lambda *a, **b: outcome)
    assert main(["doctor", "--ranks", "2", "--json"]) == 1
    row = json.loads(capsys.readouterr().out)["checks"][-1]
    assert row["found"] == "rank 1 was ended by SIGKILL"


@pytest.mark.slow
def test_two_ranks_of_this_machine(machine, capsys):
    machine(GOOD)
    code = main(["doctor", "--ranks", "2", "--burn-in", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    rows = {row["name"]: row for row in report["checks"]}
    assert "all 2 are here" in rows["ranks"]["found"]
    assert rows["link all_reduce"]["figures"]["bytes_per_second"] > 0
    assert {"rank 0 burn-in", "rank 1 burn-in", "burn-in of all"} <= set(rows)


@pytest.mark.slow
def test_a_torch_that_cannot_be_imported_is_a_row_and_no_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open')\n")
    done = subprocess.run(
        [sys.executable, "-m", "mllm_npu.cli", "doctor", "--json"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    rows = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    assert rows["import torch"]["state"] == "bad"
    assert "libtorch_cpu.so" in rows["import torch"]["found"]
    assert rows["python"]["state"] == "good"
