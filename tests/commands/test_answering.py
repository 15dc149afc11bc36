"""Pictures are redrawn and measured from the command line."""

import json

import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


def test_redraw_saves_pictures_and_says_how_close_they_are(model, tmp_path, capsys):
    for name in ("a", "b"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / f"{name}.png")
    sent = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    out = tmp_path / "out"
    assert main(["redraw", str(model), *sent, "--out", str(out), "--steps", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["sent"] for row in rows] == sent
    for row in rows:
        with Image.open(row["drawn"]) as drawn:
            assert drawn.size == (16, 16)
        assert row["psnr"] > 0
        assert -1 <= row["ssim"] <= 1
    assert main(["redraw", str(model), sent[0], "--out", str(out), "--steps", "1"]) == 0
    assert "PSNR" in capsys.readouterr().err


def test_nothing_to_redraw_is_refused(model, tmp_path, capsys):
    assert main(["redraw", str(model), str(tmp_path / "gone.png")]) == 2
    assert "gone.png" in capsys.readouterr().err


def test_many_questions_are_answered_into_a_file_that_is_gone_on_with(model, tmp_path, capsys):
    for name in ("a", "b"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / f"{name}.png")
    out = tmp_path / "answers.jsonl"
    typed = ["generate", str(model), "Which digit is this?", "--batch", str(tmp_path)]
    typed += ["--out", str(out), "--max-new-tokens", "3", "--json"]
    assert main(typed) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"answered": 2, "refused": 0, "kept": 0, "out": str(out)}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a.png", "b.png"]
    assert all(row["num_new_tokens"] <= 3 for row in rows)
    assert main(typed[:-1]) == 0
    assert "0 answered, 2 were there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "question is empty"),
        (["--batch", "gone.jsonl"], "gone.jsonl is not there"),
        (["--batch", "x", "--image", "y.png"], "--image goes with one question"),
        (["--batch", "x", "--out", "y.png"], "no .jsonl file"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_is_read(model, more, message, capsys):
    assert main(["generate", str(model), *more]) == 2
    assert message in capsys.readouterr().err
