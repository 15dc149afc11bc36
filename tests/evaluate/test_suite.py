import json

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.suite import evaluate_run
from mllm_npu.inference.options import GenerationOptions


def write_stage(run, name, seconds):
    folder = run / name
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    summary = {"seconds": seconds, "cpu_seconds": seconds, "peak_rss_gib": 1.5, "steps": 1}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_a_digits_run_gets_all_figures_of_the_issue(all_right, digits_world, tmp_path):
    write_stage(tmp_path, "vision", 40.0)
    write_stage(tmp_path, "mllm", 400.0)
    seen = []
    report = evaluate_run(
        all_right("digits"),
        world=digits_world,
        run=tmp_path,
        options=GenerationOptions(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert set(report["figures"]) == {
        *("comprehension_accuracy", "reconstruction_judged", "reconstruction_mse", "draw_judged"),
        *("judge_accuracy", "draw_diversity", "ocr_exact_match", "sum_accuracy"),
        *("train_seconds", "train_cpu_seconds", "peak_rss_gib"),
    }
    met = {figure["name"]: figure["met"] for figure in report["details"]}
    assert (met["train_seconds"], met["peak_rss_gib"], met["train_cpu_seconds"]) == (
        False,
        True,
        None,
    )
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "handwritten digits" in (tmp_path / "report.html").read_text()
    assert seen[-1][0] == seen[-1][1]


def test_every_setting_that_was_tried_is_in_the_report(all_right, digits_world, tmp_path):
    report = evaluate_run(
        all_right("digits"),
        world=digits_world,
        run=tmp_path,
        options=GenerationOptions(image_steps=7),
        limit=6,
    )
    assert set(report["choices"]) == {"drawing", "reconstruction"}
    for choice in report["choices"].values():
        assert "validation split" in choice["rule"]
        assert choice["chosen"] in choice["tried"]
        assert {trial["image_steps"] for trial in choice["tried"]} == {7}
        assert len(choice["tried"]) == 4


def test_a_scenes_run_is_measured_by_its_own_suite(all_right, scenes_world, tmp_path):
    report = evaluate_run(
        all_right("scenes"),
        world=scenes_world,
        run=tmp_path,
        options=GenerationOptions(),
        limit=4,
    )
    assert report["world"] == "scenes"
    assert {"scenes_qa", "scenes_caption_exact", "scenes_draw_strict"} <= set(report["figures"])


def test_a_world_without_suite_is_refused(all_right, digits_world, tmp_path):
    papers = json.loads((digits_world / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({**papers, "name": "mazes"}))
    with pytest.raises(DataError, match=r"'mazes'.*\['digits', 'scenes'\]"):
        evaluate_run(all_right("digits"), world=tmp_path, run=tmp_path, options=GenerationOptions())


def test_a_folder_without_world_is_refused_and_nothing_is_written(all_right, tmp_path):
    with pytest.raises(DataError, match=r"world\.json"):
        evaluate_run(
            all_right("digits"),
            world=tmp_path / "none",
            run=tmp_path / "run",
            options=GenerationOptions(),
        )
    assert not (tmp_path / "run").exists()
