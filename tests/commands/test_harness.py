"""lm-eval's own command line asks a run."""

import importlib.util
import json
import subprocess
import sys

import pytest
from play_lm_eval import write_tasks

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-eval is not installed: pip install 'lm-eval>=0.4.13'",
)


@needs_lm_eval
@pytest.mark.slow
def test_lm_eval_finds_the_model_and_writes_its_results(world, tmp_path):
    config = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(config), config, tmp_path / "run" / "model")
    (tmp_path / "tasks").mkdir()
    tasks = write_tasks(tmp_path / "tasks")
    command = [sys.executable, "-m", "mllm_npu.cli", "evaluate", "lm-eval"]
    arguments = ["--model", "mllm_npu", "--model_args", f"pretrained={tmp_path / 'run'},seed=1"]
    names = "tiny_choice,tiny_reply,tiny_text,tiny_picture"
    done = subprocess.run(
        [*command, *arguments, "--tasks", names, "--include_path", str(tasks), "--device", "cpu",
         "--output_path", str(tmp_path / "out"), "--log_samples", "--limit", "2"],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tiny_choice" in done.stdout
    [report] = (tmp_path / "out").glob("*run*/results_*.json")
    found = json.loads(report.read_text())
    assert sorted(found["results"]) == sorted(names.split(","))
    assert found["config"]["model"] == "mllm_npu"
    assert len(found["config"]["model_sha"]) == 16
    assert len(list(report.parent.glob("samples_*.jsonl"))) == 4


@needs_lm_eval
def test_arguments_reach_lm_eval_as_they_are(monkeypatch):
    from lm_eval.api.registry import get_model

    seen = []
    monkeypatch.setattr(sys, "argv", ["before"])
    monkeypatch.setattr(
        "lm_eval.__main__.cli_evaluate",
        lambda: seen.append((sys.argv[1:], get_model("mllm_npu").__name__)),
    )
    typed = ["ls", "tasks", "--include_path", "my/tasks", "-L", "2", "--help"]
    assert main(["evaluate", "lm-eval", *typed]) == 0
    assert main(["evaluate", "lm-eval"]) == 0
    assert seen == [(typed, "LmEvalModel"), ([], "LmEvalModel")]


def test_without_lm_eval_it_says_how_to_get_it(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "lm_eval" else find(name, *rest),
    )
    assert main(["evaluate", "lm-eval", "--tasks", "mmlu"]) == 2
    assert "pip install 'lm-eval>=0.4.13'" in capsys.readouterr().err


def test_it_explains_itself(capsys):
    assert main(["evaluate", "lm-eval", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model_args run=runs/digits" in " ".join(shown.split())
    assert "batch_size" in shown
