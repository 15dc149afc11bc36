"""Released weights are brought in from the command line."""

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
