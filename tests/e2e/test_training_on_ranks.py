"""Training on two ranks from the command line: stopped, gone on with on one, killed, exported."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import Launch
from play_commands import command, train_in_little_room, train_until
from safetensors.torch import load_file
from tiny_training import stored

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.train.recorder import Recorder

STEPS = 16
TIMEOUT = 6.0
VALIDATION = [
    *("validation=digits", "validation.loss.every=4", "validation.loss.num_packs=4"),
    *("validation.tasks.every=8", "validation.tasks.limit=3", "generation.image_steps=2"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_digits(folder / "data", scale=0.05)
    return folder


def settings(place: Path, run: str, *more: str) -> list[str]:
    return [
        *("experiment=digits/mllm", f"world_dir={place / 'data'}", f"run_dir={place / run}"),
        *("initialise_from=null", f"train.max_steps={STEPS}", "train.schedule.warmup_steps=2"),
        *("train.packs_per_step=2", "dataset.tokens_per_pack=256", "objective.feature_cache=null"),
        *("train.log_every=1", "train.checkpoints.keep_last=9", "tracker=[jsonl]", "threads=1"),
        *("train.throughput.count_flops=false", "generation.image_steps=2", *more),
    ]


def logged(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in logged(folder) if "loss" in line}


def measured(folder: Path, name: str) -> dict[int, dict]:
    lines = [line for line in logged(folder) if name in line.get("validation", {})]
    return {line["step"]: line["validation"][name] for line in lines}


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """A run on one process that nobody disturbs."""
    profile = ["profile=true", "train.profile.active=1"]
    assert main(["train", *settings(place, "alone", *VALIDATION, *profile)]) == 0
    return place / "alone"


def start_torchrun(*typed: str) -> subprocess.Popen:
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*program, "-m", "mllm_npu.cli", "train", *typed],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def process_of_rank(launcher: int, rank: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"rank {rank} is not among {children}")


@pytest.fixture(scope="module")
def stopped(place: Path, alone: Path) -> tuple[Path, int, str]:
    """A run on two ranks, one of which was asked to stop; its folder, last step and words."""
    folder = place / "two"
    running = start_torchrun(*settings(place, "two", *VALIDATION, "parallel=fsdp2"))
    try:
        deadline = time.monotonic() + 90
        while not (folder / "metrics.jsonl").is_file() or len(losses(folder)) < 2:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process_of_rank(running.pid, 1), signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    return folder, max(losses(folder)), said


def test_a_signal_to_one_rank_stops_all_behind_a_checkpoint(stopped, alone):
    folder, step, said = stopped
    assert 2 <= step < STEPS
    assert said.count(f"stopped at step {step}; the same command goes on from there") == 1
    assert (folder / "checkpoints" / "latest").read_text().strip() == f"step-{step:08d}"
    assert not (folder / "summary.json").exists()
    expected = {n: loss for n, loss in losses(alone).items() if n <= step}
    assert losses(folder) == pytest.approx(expected, rel=1e-4)


def test_one_process_goes_on_to_what_one_process_alone_would_have_given(stopped, alone, place):
    folder, _, _ = stopped
    assert main(["train", *settings(place, "two", *VALIDATION)]) == 0
    assert list(losses(folder)) == list(range(1, STEPS + 1))
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-3)
    for name, steps in (("loss", [4, 8, 12, 16]), ("tasks", [8, 16])):
        assert list(measured(folder, name)) == list(measured(alone, name)) == steps
    for step, values in measured(alone, "loss").items():
        assert measured(folder, "loss")[step]["loss"] == pytest.approx(values["loss"], rel=1e-3)
        assert set(values["loss_per_source"]) == {"instruction", "ocr"}
    assert json.loads((folder / "summary.json").read_text())["steps"] == STEPS
    assert answers(folder, folder / "seven.png")


def answers(folder: Path, picture: Path) -> bool:
    typed = ["generate", str(folder), "Draw a seven.", "--draw", "--out", str(picture)]
    assert main(typed) == 0
    return picture.is_file()


def test_a_checkpoint_in_the_middle_becomes_a_model_that_answers(stopped, place, capsys):
    folder, step, _ = stopped
    out = place / "exported"
    assert main(["zoo", "export", str(folder), "--step", str(step), "--out", str(out)]) == 0
    assert f"exported step {step}" in capsys.readouterr().err
    kept = {
        name.removeprefix("objective/model."): tensor
        for name, tensor in stored(folder, step).items()
        if name.startswith("objective/model.")
    }
    found = {name: t for path in out.glob("*.safetensors") for name, t in load_file(path).items()}
    assert len(found) > 50
    assert all(kept[name].equal(tensor) for name, tensor in found.items())
    assert answers(out, place / "exported.png")
    assert main(["zoo", "export", str(folder), "--step", "1", "--out", str(place / "none")]) == 2
    assert f"step-{step:08d}" in capsys.readouterr().err


def test_a_profile_is_written_and_no_tracker_that_was_not_chosen(alone):
    with gzip.open(alone / "profile" / "rank0.trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any("aten::" in event.get("name", "") for event in events)
    assert (alone / "profile" / "rank0.operations.txt").stat().st_size > 500
    assert not (alone / "tensorboard").exists()


def test_a_run_that_is_there_is_gone_on_with_from_where_it_is_asked_to(
    place, alone, capsys, monkeypatch
):
    advance, sent = Recorder.advance, []

    def stop_once(recorder, step):
        advance(recorder, step)
        if step == 7 and not sent:  # the bar moves once more when the update is logged
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    typed = ["train", *settings(place, "parts", "train.checkpoint_every=5")]
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "advance", stop_once)
        assert main(typed) == 0
    assert max(losses(place / "parts")) == 8
    capsys.readouterr()
    assert main([*typed, "resume=never"]) == 2
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert last.startswith("CheckpointError: A new run was asked for")
    assert "holds one at step 8" in last
    assert main([*typed, "resume=5"]) == 0
    assert [line["step"] for line in logged(place / "parts")] == list(range(1, STEPS + 1))
    assert losses(place / "parts") == losses(alone)


def test_a_rank_that_is_killed_is_named_by_the_other_one_in_time(place):
    typed = settings(place, "killed", "parallel=fsdp2", f"parallel.timeout_seconds={TIMEOUT}")
    launched = Launch(
        *(train_until, 2, place / "killing"), typed=typed, rank=1, step=3, number=signal.SIGKILL
    )
    launched.processes[1].join(60)
    begin = time.monotonic()
    launched.signal(0, signal.SIGTERM)  # as torchrun does when it has lost a rank
    assert launched.end(30) == [2, -signal.SIGKILL]
    assert time.monotonic() - begin < 2 * TIMEOUT + 2
    (told,) = [line for line in launched.log(0).splitlines() if "Error" in line]
    gone = "rank 1 is gone. It was last seen: rank 1 (process "
    assert told.startswith(f"[rank 0] TrainingError: The run cannot go on: {gone}")
    assert told.endswith("The same command goes on from the last checkpoint.")


def test_a_number_of_processes_that_does_not_fit_is_one_line_on_each(place, capsys):
    typed = ["train", *settings(place, "none", "parallel=hsdp")]
    launched = Launch(command, 2, place / "refusing", typed=[[*typed, "parallel.replicas=3"]])
    assert launched.end() == [2, 2]
    for rank in range(2):
        (line,) = launched.log(rank).strip().split("\n")
        assert line.startswith(f"[rank {rank}] ConfigError: parallel.replicas=3 was asked for")
    assert main(typed) == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.startswith("ConfigError: parallel.replicas=2 was asked for, and 1 processes")
    assert not (place / "none").exists()


def test_ranks_forget_a_run_together_and_begin_anew(place):
    old = place / "anew"
    (old / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/latest", "summary.json", "left.txt"):
        (old / name).write_text("{}")
    typed = ["train", *settings(place, "anew", "train.max_steps=1", "parallel=ddp")]
    assert main([*typed, "seed=1"]) == 2
    again = Launch(command, 2, place / "again", typed=[[*typed, "--fresh"]])
    assert again.results() == [[0], [0]]
    assert list(losses(old)) == [1]
    assert not (old / "left.txt").exists()
    assert not list(place.glob("*.partial"))


def test_a_pack_that_is_too_large_for_the_memory_is_told_before_the_first_step(place):
    typed = settings(place, "large", "dataset.tokens_per_pack=3072", "train.max_steps=1")
    typed.append("models.language_model.config.intermediate_size=4096")
    launched = Launch(train_in_little_room, 1, place / "small", typed=typed, room_gib=0.5)
    assert launched.results() == [2], launched.log(0)
    (told,) = [line for line in launched.log(0).splitlines() if "Error" in line]
    numbers = re.match(
        r"TrainingError: A pack of (\d+) tokens and \d+ tiles does not fit .* this machine "
        r"\(\d+\.\d GiB\)\. A pack of (\d+) tokens and \d+ tiles ran, .* "
        r"Set dataset\.tokens_per_pack=(\d+) .* come from .*-train-\d+.*",
        told,
    )
    failed, ran, advised = map(int, numbers.groups())
    assert ran < advised < failed < 3100
    assert not (place / "large").exists()
