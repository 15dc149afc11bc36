"""Tokenizers are extended from the command line."""

import json

import pytest

from mllm_npu.cli import main
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer


@pytest.fixture
def plain(tmp_path):
    train_tokenizer(["a cat"], vocab_size=300).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_add_tokens(plain, tmp_path, capsys):
    out = tmp_path / "extended"
    typed = ["tokenizer", "add-tokens", str(plain), "--out", str(out)]
    assert main([*typed, "--slots", "16", "--locations", "8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["new_size"] == report["old_size"] + 16 + 4 + 8 + 2
    assert len(load_tokenizer(path=str(out))) == report["new_size"]
    assert main(["tokenizer", "add-tokens", str(out), "--out", str(tmp_path / "twice")]) == 2
    assert "already has" in capsys.readouterr().err


def test_what_was_done_is_said(plain, tmp_path, capsys):
    assert main(["tokenizer", "add-tokens", str(plain), "--out", str(tmp_path / "x")]) == 0
    assert "->" in capsys.readouterr().err
