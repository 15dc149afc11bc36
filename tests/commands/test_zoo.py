"""Released weights are brought in, and trained ones out, from the command line."""

from types import SimpleNamespace

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


@pytest.fixture
def stand_in(monkeypatch):
    """Puts functions in the place of modules that a command imports late."""

    def put(**modules):
        later = zoo.later
        names = {name.replace("__", "."): part for name, part in modules.items()}
        monkeypatch.setattr(zoo, "later", lambda name: names.get(name) or later(name))

    return put


def test_a_folder_of_the_hub_is_imported_as_asked(stand_in, capsys, tmp_path):
    asked = {}

    def import_llava(folder, out, **options):
        asked.update(options, folder=folder, out=out)
        asked.pop("say")("reading")
        return out

    stand_in(zoo__llava_import=SimpleNamespace(import_llava=import_llava))
    out = tmp_path / "ours"
    typed = ["zoo", "import", str(tmp_path / "hub"), "--out", str(out)]
    assert main([*typed, "--copy", "--dtype", "bfloat16", "--no-hashes"]) == 0
    assert asked == {
        "folder": str(tmp_path / "hub"),
        "out": out,
        "copy": True,
        "dtype": "bfloat16",
        "chat_format": None,
        "hashes": False,
    }
    said = capsys.readouterr().err
    assert "reading" in said
    assert f"imported: {out}" in said


def test_a_card_is_compared_with_before_anything_else(stand_in, capsys, tmp_path):
    assert main(["zoo", "import", "hub", "--out", str(tmp_path / "m"), "--card", "nothing"]) == 2
    assert "'nothing' is no card" in capsys.readouterr().err
    typed = ["zoo", "import", str(tmp_path), "--out", str(tmp_path / "m")]
    assert main([*typed, "--card", "llava_1_5_7b"]) == 2
    assert "config.json is missing, and belongs to llava_1_5_7b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["hub", "workers=seedx"], "one folder, or overrides alone"),
        (["hub", "other"], "one folder, or overrides alone"),
        (["weights=[a]", "--dtype", "float32"], "--dtype was given without a folder"),
        (["weights=[a]", "--chat-format", "mistral"], "--chat-format was given without"),
        (["nowhere"], "there is no such folder"),
    ],
)
def test_an_import_that_means_nothing_is_one_message(typed, message, capsys, tmp_path):
    assert main(["zoo", "import", *typed, "--out", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().split("\n")) == 1


@pytest.fixture
def written(stand_in):
    """What is written in another layout; a stage exports its step 7 beside it first."""
    done = []

    def export_stage(stage, out, *, step, averaged):
        done.append(("stage", stage, out, step, averaged))
        out.mkdir()
        return 7

    def export_llava(folder, out, *, say):
        done.append(("layout", folder, out, folder.is_dir()))
        return out

    folders = SimpleNamespace(find_model_folder=lambda run: run / "model")
    stand_in(
        export=SimpleNamespace(export_stage=export_stage),
        zoo__llava_export=SimpleNamespace(export_llava=export_llava),
        model_folder=folders,
    )
    return done


def test_a_checkpoint_goes_out_in_the_layout_of_the_hub(written, capsys, tmp_path):
    stage, out = tmp_path / "stage", tmp_path / "served"
    (stage / "checkpoints").mkdir(parents=True)
    (stage / "config.yaml").touch()
    typed = ["zoo", "export", str(stage), "--out", str(out), "--layout", "transformers"]
    assert main([*typed, "--step", "7", "--last-weights"]) == 0
    beside = tmp_path / "served.partial-model"
    assert written == [("stage", stage, beside, 7, False), ("layout", beside, out, True)]
    assert not beside.exists()
    assert f"exported step 7: {out}" in capsys.readouterr().err


def test_a_model_folder_goes_out_as_it_is(written, capsys, tmp_path):
    out = tmp_path / "served"
    typed = ["zoo", "export", str(tmp_path), "--out", str(out), "--layout", "transformers"]
    assert main(typed) == 0
    assert written == [("layout", tmp_path / "model", out, False)]
    assert main([*typed, "--step", "3"]) == 2
    assert "has no checkpoints" in capsys.readouterr().err
    assert main([*typed[:-1], "onnx"]) == 2
    assert "Choose ours or transformers" in capsys.readouterr().err
