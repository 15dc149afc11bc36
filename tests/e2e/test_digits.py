"""The whole way in miniature: data, three stages, resume, words, a picture, a talk, the report."""

import io
import json
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.terminal import TerminalChat
from mllm_npu.model_folder import find_model_folder, load_engine
from mllm_npu.processing.conversation import DrawnImage, ReadImage
from mllm_npu.train.recorder import Recorder

STEPS = 20
STAGES = ("vision", "mllm", "decoder")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data", scale=0.05)
    return folder


def train(place: Path, *more: str, experiment: str = "digits") -> int:
    settings = [
        f"world_dir={place / 'data'}",
        f"output_dir={place / 'runs'}",
        f"train.max_steps={STEPS}",
        "train.schedule.warmup_steps=2",
        "train.log_every=1",
        "train.recorder.progress=false",
        "dataset.tokens_per_pack=1024",
        "threads=1",
    ]
    return main(["train", f"experiment={experiment}", *settings, *more])


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A finished run of all stages; every test leaves it as it is, or adds to it."""
    assert train(place) == 0
    return place / "runs" / "digits"


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls(run, stage):
    values = losses(run / stage)
    assert len(values) == STEPS
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_each_stage_leaves_what_the_next_one_and_the_report_need(run):
    for stage in STAGES:
        summary = json.loads((run / stage / "summary.json").read_text())
        assert summary["steps"] == STEPS
        assert summary["cpu_seconds"] > 0
        assert (run / stage / "model" / "model.yaml").is_file()
        assert list((run / stage / "tensorboard").iterdir())
    for before, after in pairwise(STAGES):
        config = (run / after / "config.yaml").read_text()
        assert f"initialise_from: {run / before / 'model'}" in config
    assert not list(run.rglob("*.partial"))
    assert find_model_folder(run) == run / "decoder" / "model"


def test_a_second_call_trains_nothing(place, run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("metrics.jsonl")}
    assert train(place) == 0
    assert capsys.readouterr().err.count("trained already") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_in_the_same_folder_are_refused(place, run, capsys):
    assert train(place, "seed=1") == 2
    assert "seed: 1" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_the_same_losses(place, run, monkeypatch, capsys):
    """Stopped by a signal after 12 steps; the very command that was stopped goes on."""
    advance, sent = Recorder.advance, []

    def stop_once(recorder, step):
        advance(recorder, step)
        if step == 11 and not sent:  # the bar moves once more when the update is logged
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    folder = place / "resumed"
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "advance", stop_once)
        assert train(place, f"run_dir={folder}", experiment="digits/mllm") == 0
    assert "stopped at step 12" in capsys.readouterr().err
    assert len(losses(folder)) == 12
    assert not (folder / "summary.json").exists()
    assert train(place, f"run_dir={folder}", experiment="digits/mllm") == 0
    # Not to the bit: the cache of features is filled anew, in batches of other sizes.
    assert losses(folder) == pytest.approx(losses(run / "mllm"), rel=1e-4)


def test_generate_draws_and_answers(run, tmp_path, capsys):
    out = tmp_path / "seven.png"
    assert main(["generate", str(run), "Draw a seven.", "--draw", "--out", str(out), "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["pictures"] == [str(out)]
    with Image.open(out) as picture:
        assert picture.size == (16, 16)
        assert len(picture.convert("L").getcolors()) > 1
    question = ["generate", str(run), "Which digit is this?", "--image", str(out), "--json"]
    assert main([*question, "--max-new-tokens", "4", "--out", str(tmp_path / "b.png")]) == 0
    assert json.loads(capsys.readouterr().out)["finish_reason"] in {"stop", "length"}


def test_chat_answers(run, tmp_path):
    """A talk of several turns; what 20 steps have taught is not asked, only that it goes on."""
    engine, _ = load_engine(run / "decoder" / "model", device="cpu")
    Image.new("L", (16, 16), 200).save(tmp_path / "in.png")
    shown = io.StringIO()
    talk = TerminalChat(
        engine=engine,
        options=GenerationOptions(max_new_tokens=4, image_steps=2, images="force"),
        folder=tmp_path / "pictures",
        console=Console(file=shown, width=200),
    )
    lines = iter(["Draw a seven.", f"/image {tmp_path / 'in.png'}", "And this one?", "/quit"])
    talk.run(lambda _: next(lines))
    assert "Error" not in shown.getvalue()
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    assert isinstance(talk.turns[1].parts[0], DrawnImage)
    assert isinstance(talk.turns[2].parts[0], ReadImage)
    assert len(list((tmp_path / "pictures").iterdir())) >= 2


def test_evaluate_writes_the_report(run, capsys):
    assert main(["evaluate", str(run), "--limit", "4", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"comprehension_accuracy", "draw_judged", "ocr_exact_match", "train_seconds"} <= set(
        figures
    )
    assert figures["judge_accuracy"] > 0.5
    report = json.loads((run / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "RUN", ""], "empty"),
        (["generate", "RUN", "   "], "empty"),
        (["generate", "RUN", "What is <img>?"], "control token"),
        (["generate", "RUN", "word " * 600], "max_tokens=512"),
        (["generate", "RUN", "Hi", *["--image", "PICTURE"] * 100], "max_tokens=512"),
        (["generate", "RUN", "Hi", "--draw", "--guidance", "nan"], "guidance=nan"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_line(run, tmp_path, capsys, arguments, message):
    picture = tmp_path / "picture.png"
    Image.new("L", (16, 16)).save(picture)
    names = {"RUN": str(run), "PICTURE": str(picture)}
    out = ["--out", str(tmp_path / "out.png")]
    assert main([names.get(word, word) for word in arguments] + out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


def test_weights_of_another_model_are_refused_and_leave_nothing(place, run, capsys):
    other = ["models.language_model.config.num_hidden_layers=2", f"run_dir={place / 'other'}"]
    assert train(place, *other, experiment="digits/mllm") == 2
    error = capsys.readouterr().err
    assert error.startswith("WeightsError")
    assert len(error.strip().splitlines()) == 1
    assert not (place / "other").exists()
