"""A model is asked from the command line: talks in a terminal, many questions, redrawn pictures."""

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
from typing import get_args

import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.commands.answering import ShownPictures
from mllm_npu.commands.console import Quantization
from mllm_npu.config import load_config
from mllm_npu.inference.terminal_picture import Way
from mllm_npu.model_folder import save_model_folder
from mllm_npu.models import quantization as models


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


def talk(model, folder, *typed, lines, **variables):
    """What a terminal shows of a talk: the command has its one end, the test the other."""
    end, inner = pty.openpty()
    command = [sys.executable, "-m", "mllm_npu.cli", "chat", str(model), "--out", str(folder)]
    plain = {name: value for name, value in os.environ.items() if name != "TMUX"}
    with subprocess.Popen(
        [*command, *typed], stdin=inner, stdout=inner, stderr=inner, env=plain | variables
    ) as process:
        os.close(inner)
        os.write(end, "".join(f"{line}\n" for line in lines).encode())
        shown = b""
        try:
            while piece := os.read(end, 65536):
                shown += piece
        except OSError:  # the command has ended
            pass
    os.close(end)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


def picture_of(shown):
    chunks = re.findall("\x1b_G[^;]*;([^\x1b]*)\x1b", shown)
    return Image.open(io.BytesIO(base64.b64decode("".join(chunks))))


@pytest.mark.slow
def test_a_talk_shows_pictures_as_the_terminal_can(model, tmp_path):
    Image.new("RGB", (200, 100), (9, 8, 7)).save(tmp_path / "seen.png")
    lines = [f"/image {tmp_path / 'seen.png'}", "/quit"]
    shown = talk(model, tmp_path / "out", lines=lines, TERM="xterm-kitty")
    picture = picture_of(shown)
    assert picture.size == (200, 100)
    assert picture.getpixel((150, 50)) == (9, 8, 7)
    shown = talk(model, tmp_path, "--pictures", "sixel", lines=lines, TERM="xterm-kitty")
    assert '\x1bP0;1q"1;1;200;100' in shown
    assert "\x1b_G" not in shown


def test_ways_to_show_pictures_are_those_of_the_terminal(capsys):
    assert [each.value for each in ShownPictures] == [each.value for each in Way]
    assert main(["chat", "run", "--pictures", "ascii"]) == 2
    assert "'ascii' is not one of" in capsys.readouterr().err


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


def test_a_shipped_model_answers_by_its_name_in_fewer_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = ["generate", "digits", "Draw a seven.", "--out", "seven.png", "--json"]
    assert main([*drawn, "--quantize", "bfloat16"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == ["seven.png"]
    assert main(["generate", "digits", "Which digit is this?", "--image", "seven.png"]) == 0
    assert "seven" in capsys.readouterr().out
    assert main([*drawn, "--quantize", "int3"]) == 2
    assert "'int3' is not one of" in capsys.readouterr().err


def test_ways_to_keep_weights_are_those_of_the_models():
    assert [each.value for each in Quantization] == list(get_args(models.Quantization))
