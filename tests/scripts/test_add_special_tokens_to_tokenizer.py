"""The script hands what is typed to the command."""

import runpy
import sys

import pytest

from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer


@pytest.fixture
def run_script(root, monkeypatch):
    """Returns a function that runs the script with arguments and gives its exit code."""
    script = root / "scripts" / "tools" / "add_special_tokens_to_tokenizer.py"

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(script), run_name="__main__")
        return stopped.value.code

    return run


def test_a_tokenizer_is_extended(run_script, tmp_path):
    train_tokenizer(["a cat"] * 5, vocab_size=270).save_pretrained(tmp_path / "plain")
    arguments = (str(tmp_path / "plain"), "--out", str(tmp_path / "out"))
    assert run_script(*arguments) == 0
    assert "<loc-223>" in load_tokenizer(path=str(tmp_path / "out")).get_vocab()
    assert run_script(*arguments) == 2


def test_what_cannot_be_done_is_one_line(run_script, tmp_path, capsys):
    assert run_script(str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")) == 2
    assert "no such folder" in capsys.readouterr().err
