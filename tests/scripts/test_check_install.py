import importlib.metadata

import pytest


@pytest.fixture
def script(load_script):
    return load_script("check_install")


def test_this_environment_is_the_pinned_one(script, capsys):
    assert script.main() == 0
    assert "torch 2." in capsys.readouterr().out


def test_the_pin_is_read_from_the_constraints(script, tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("# torch==1.0\ntorchmetrics==3.0\ntorch==2.13.0\n")
    assert script.pinned_version(file, "torch") == "2.13.0"
    with pytest.raises(ValueError, match="does not pin numpy"):
        script.pinned_version(file, "numpy")


@pytest.mark.parametrize(
    ("installed", "has_torchvision", "words"),
    [
        ("2.13.0", False, []),
        ("2.13.0+cpu", False, []),
        ("2.14.0", False, ["another package replaced it"]),
        ("2.13.0", True, ["pip uninstall torchvision"]),
        (None, False, ["not installed"]),
        ("2.12.0+cu130", True, ["2.12.0+cu130 is installed", "pip uninstall torchvision"]),
    ],
)
def test_what_is_wrong_is_said(script, installed, has_torchvision, words):
    found = script.complaints(pinned="2.13.0", installed=installed, has_torchvision=has_torchvision)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_a_replaced_torch_stops_the_installation(script, monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0")
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("error: torch ")
