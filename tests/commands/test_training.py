"""Exit codes of training."""

from mllm_npu.cli import main


def test_an_interrupted_training_says_so_by_its_exit_code(monkeypatch, tmp_path, capsys):
    from mllm_npu.train import stages

    monkeypatch.setattr(stages, "train_experiment", lambda *_, **__: [tmp_path])
    assert main(["train"]) == 130
    assert "done" not in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{}")
    assert main(["train"]) == 0
    assert "done" in capsys.readouterr().err
