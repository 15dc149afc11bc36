"""Released weights are brought in, and trained ones out, from the command line."""

import pytest

from mllm_npu.cli import main
from mllm_npu.commands import zoo
from mllm_npu.config import load_config


def test_import_passes_on_what_was_asked(monkeypatch, capsys, tmp_path):
    asked = {}

    class Folders:
        def import_model(self, config, out, *, copy, say):
            asked.update(weights=list(config.weights), out=out, copy=copy)
            return out

    later = zoo.later
    monkeypatch.setattr(
        zoo, "later", lambda name: Folders() if name == "model_folder" else later(name)
    )
    weights = "weights=[pretrained/pytorch_model.bin]"
    assert main(["zoo", "import", weights, "--out", str(tmp_path / "m"), "--copy"]) == 0
    assert asked == {
        "weights": ["pretrained/pytorch_model.bin"],
        "out": tmp_path / "m",
        "copy": True,
    }
    assert "imported" in capsys.readouterr().err


def test_weights_that_are_not_there_are_refused(capsys, tmp_path):
    assert load_config("model").weights is None
    assert main(["zoo", "import", "--out", str(tmp_path / "m")]) == 2
    assert "weights=null" in capsys.readouterr().err


@pytest.fixture
def exported(monkeypatch):
    """What the export was asked for; it answers with step 300."""
    asked = []

    class Export:
        def export_stage(self, stage, out, *, step, averaged):
            asked.append((stage, out, step, averaged))
            return 300

    later = zoo.later
    monkeypatch.setattr(zoo, "later", lambda name: Export() if name == "export" else later(name))
    return asked


@pytest.mark.parametrize(
    ("options", "step", "averaged"),
    [
        ([], None, True),
        (["--step", "300"], 300, True),
        (["--step", "0", "--last-weights"], 0, False),
    ],
)
def test_export_passes_on_what_was_asked(exported, capsys, tmp_path, options, step, averaged):
    out = tmp_path / "model"
    assert main(["zoo", "export", str(tmp_path / "stage"), "--out", str(out), *options]) == 0
    assert exported == [(tmp_path / "stage", out, step, averaged)]
    assert f"exported step 300: {out}" in capsys.readouterr().err


def test_what_is_there_already_is_not_written_over(exported, capsys, tmp_path):
    for out in (tmp_path, tmp_path / "file"):
        (tmp_path / "file").touch()
        assert main(["zoo", "export", str(tmp_path / "stage"), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert f"ConfigError: {out} is there already" in error
        assert len(error.strip().split("\n")) == 1
    assert exported == []


def test_a_folder_without_a_stage_is_refused(capsys, tmp_path):
    typed = ["zoo", "export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "model")]
    assert main(typed) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_step_below_nought_is_a_wrong_command(exported, capsys, tmp_path):
    typed = ["zoo", "export", str(tmp_path), "--out", str(tmp_path / "m"), "--step", "-1"]
    assert main(typed) == 2
    assert "--step" in capsys.readouterr().err
    assert exported == []
