"""The whole way in miniature: data, three stages, resume, words, a picture, the report."""

import json
from pathlib import Path

import pytest

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.errors import ConfigError
from mllm_npu.train.stages import train_experiment

STEPS = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data", scale=0.05)
    return folder


def overrides(place: Path, *more: str) -> list[str]:
    return [
        "experiment=digits",
        f"world_dir={place / 'data'}",
        f"output_dir={place / 'runs'}",
        f"train.max_steps={STEPS}",
        "train.log_every=1",
        "threads=1",
        *more,
    ]


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    folders = train_experiment(overrides(place))
    assert [folder.name for folder in folders] == ["vision", "mllm", "decoder"]
    return place / "runs" / "digits"


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("stage", ["vision", "mllm", "decoder"])
def test_loss_falls(run: Path, stage: str):
    values = losses(run / stage)
    assert len(values) == STEPS
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_stage_writes_everything(run: Path):
    for stage in ("vision", "mllm", "decoder"):
        summary = json.loads((run / stage / "summary.json").read_text())
        assert summary["steps"] == STEPS
        assert summary["cpu_seconds"] > 0
        assert (run / stage / "model" / "model.yaml").is_file()
    assert not list(run.rglob("*.partial"))


def test_second_call_trains_nothing(place: Path, run: Path):
    said: list[str] = []
    train_experiment(overrides(place), say=said.append)
    assert len(said) == 3
    assert all("trained already" in line for line in said)


def test_other_settings_in_the_same_folder_are_refused(place: Path, run: Path):
    with pytest.raises(ConfigError, match="max_steps"):
        train_experiment(overrides(place, "train.max_steps=21"))


def test_resume_gives_the_same_losses(place: Path, run: Path):
    """Stopped after 12 steps and gone on with: the very losses of the run that was not stopped."""
    from mllm_npu.build import build_trainer
    from mllm_npu.config import load_config

    settings = [
        "experiment=digits/mllm",
        *overrides(place)[1:],
        f"run_dir={place / 'resumed'}",
        "train.checkpoint_every=4",
    ]
    config = load_config("training", settings)
    trainer = build_trainer(config)
    trainer.recorder.advance = stop_at(trainer, 12)
    assert not trainer.run(resume=True).is_finished
    assert build_trainer(config).run(resume=True).is_finished
    assert losses(place / "resumed") == losses(run / "mllm")


def stop_at(trainer, step: int):
    import os
    import signal

    def advance(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return advance


def test_generate_answers_and_draws(run: Path, tmp_path: Path, capsys):
    out = tmp_path / "seven.png"
    code = main(["generate", str(run), "Draw a seven.", "--draw", "--out", str(out), "--json"])
    assert code == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["pictures"] == [str(out)]
    from PIL import Image

    assert Image.open(out).size == (16, 16)
    assert main(["generate", str(run), "Which digit is this?", "--image", str(out)]) == 0


def test_evaluate_writes_the_report(run: Path, capsys):
    assert main(["evaluate", str(run), "--limit", "8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"comprehension_accuracy", "draw_judged", "ocr_exact_match"} <= set(figures)
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "experiment=digits", "+train.lrr=1"], "train.lrr"),
        (["train", "experiment=digits", "world_dir=nowhere"], "mllm-npu data"),
        (["generate", "RUN", ""], "empty"),
        (["generate", "RUN", "What?", "--image", "nothing.png"], "nothing.png"),
        (["generate", "nowhere", "Hello"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(run, tmp_path, capsys, arguments, message):
    typed = [str(run) if word == "RUN" else word for word in arguments]
    if typed[0] == "train":
        typed.append(f"output_dir={tmp_path}")
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
