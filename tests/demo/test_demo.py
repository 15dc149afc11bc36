"""The entry points of the seed are a few lines that call the command line."""

import runpy
import sys

import pytest
from PIL import Image

from mllm_npu import cli


@pytest.fixture
def run_demo(root, monkeypatch):
    """Runs demo/<name>.py with arguments; returns what it asks the command line for."""

    def run(name: str, *arguments: str) -> list[str]:
        asked = []
        monkeypatch.setattr(cli, "main", lambda words: asked.extend(words) or 3)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(root / "demo" / f"{name}.py"), run_name="__main__")
        assert stop.value.code == 3  # the command's own exit code
        return asked

    return run


def test_a_picture_is_asked_about(run_demo, root):
    picture = str(root / "demo" / "seven.png")
    default = ["generate", "runs/digits", "Which digit is this?", "--image", picture]
    assert run_demo("img2txt_inference") == default
    assert run_demo("img2txt_inference", "a.png")[-1] == "a.png"
    asked = run_demo("img2txt_inference", "a.png", "How many?")
    assert asked == ["generate", "runs/digits", "How many?", "--image", "a.png"]


def test_a_picture_is_drawn(run_demo):
    default = ["generate", "runs/digits", "Draw a seven.", "--out", "picture.png"]
    assert run_demo("txt2img_generation") == default
    assert run_demo("txt2img_generation", "Draw a 3.")[2:] == ["Draw a 3.", "--out", "picture.png"]
    assert run_demo("txt2img_generation", "Draw a 3.", "b.png")[-1] == "b.png"


def test_the_files_are_thin_and_the_picture_is_there(root):
    for path in (root / "demo").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 15
    with Image.open(root / "demo" / "seven.png") as picture:
        assert picture.size == (16, 16)
