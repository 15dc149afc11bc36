"""The zoo is listed, shown, checked, saved and pushed from the command line."""

import json
import shutil

import pytest

from mllm_npu.cli import main
from mllm_npu.commands import zoo_cards
from mllm_npu.shipped import SHIPPED_FOLDER
from mllm_npu.zoo.card import card_names


def test_all_models_are_listed(capsys):
    assert main(["zoo", "list"]) == 0
    shown = capsys.readouterr().err
    assert all(name in shown for name in card_names())
    assert "mllm-npu zoo show NAME" in shown


def test_a_list_for_machines_holds_the_whole_cards(capsys):
    assert main(["zoo", "list", "--family", "seedx", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == [
        *("seedx_detokenizer", "seedx_edit", "seedx_instruct", "seedx_pretrain")
    ]
    assert cards[0]["parameters"] == 4646925291
    assert main(["zoo", "list", "--family", "none"]) == 2
    assert "There are: digits, llava," in capsys.readouterr().err


def test_one_model_is_shown_with_what_to_type(capsys):
    assert main(["zoo", "show", "llava_1_5_7b"]) == 0
    shown = capsys.readouterr().err
    for words in (
        "get     hf download llava-hf/llava-1.5-7b-hf",
        "check   mllm-npu zoo check llava_1_5_7b pretrained/llava-1.5-7b-hf",
        "import  mllm-npu zoo import",
        "ask     mllm-npu chat",
        "train   mllm-npu train",
    ):
        assert words in shown
    assert main(["zoo", "show", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "digits"


def test_an_unknown_model_lists_the_known(capsys):
    assert main(["zoo", "show", "digit"]) == 2
    error = capsys.readouterr().err
    assert "Did you mean 'digits'?" in error
    assert "seedx_instruct" in error


def test_a_shipped_model_is_checked_without_a_folder(capsys):
    assert main(["zoo", "check", "digits"]) == 0
    assert "4 files, 4.63 MB; 4 have the published content" in capsys.readouterr().err
    assert main(["zoo", "check", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "digits",
        "files": 4,
        "hashed": 4,
        "bytes": 4629255,
    }


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_folder_is_told_in_one_line(damage, tmp_path, capsys):
    shutil.copytree(SHIPPED_FOLDER / "digits", tmp_path / "digits")
    file = tmp_path / "digits" / "model.safetensors"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\xff")
    assert main(["zoo", "check", "digits", str(tmp_path / "digits")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("WeightsError: ")
    assert "model.safetensors" in error
    assert {"missing": "is missing", "cut": "cut off", "other": "SHA-256"}[damage] in error
    assert len(error.splitlines()) == 1


def test_a_model_that_is_not_shipped_needs_a_folder(capsys, tmp_path):
    assert main(["zoo", "check", "llava_1_5_7b"]) == 2
    assert "Give the folder it lies in" in capsys.readouterr().err
    assert main(["zoo", "check", "llava_1_5_7b", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err


def test_a_model_is_saved_with_its_card_and_pushed_when_that_is_asked(
    tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    typed = ["--licence", "apache-2.0", "--base", "me/base", "--title", "Numbers"]
    assert main(["zoo", "save", "digits", "--out", str(out), *typed]) == 0
    page = (out / "README.md").read_text()
    assert "license: apache-2.0" in page
    assert "- me/base" in page
    assert "# Numbers" in page
    assert main(["zoo", "save", "digits", "--out", str(out)]) == 2
    capsys.readouterr()
    asked = []
    pretrained = zoo_cards.later("zoo.pretrained")
    monkeypatch.setattr(
        pretrained, "push_to_hub", lambda *where, **how: asked.append((where, how)) or "address"
    )
    assert main(["zoo", "push", str(out), "me/numbers", "--public"]) == 0
    [(where, how)] = asked
    assert where == (out, "me/numbers")
    assert how == {"private": False, "message": "Upload a mllm-npu model"}
    assert "pushed: address" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_is_not_shipped(tmp_path, capsys):
    assert main(["zoo", "ship", str(tmp_path), "--as", "digits"]) == 2
    assert "mllm-npu evaluate" in capsys.readouterr().err
