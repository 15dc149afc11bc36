import json
import os

import pytest

from mllm_npu.evaluate.training_log import add_up, read_stages


def write_stage(run, name, *, summary=None, when=0.0, losses=(3.0, 2.0)):
    folder = run / name
    folder.mkdir(parents=True)
    lines = [
        {"step": 10 * (n + 1), "loss": loss, "lr": 1e-3, "terms": {"language": loss / 2}}
        for n, loss in enumerate(losses)
    ]
    lines[-1]["loss_per_task"] = {"ocr": 0.5}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 99, "lo')
    os.utime(folder / "metrics.jsonl", (when, when))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))


def summary(seconds, peak):
    return {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_rss_gib": peak, "steps": 20}


def test_stages_come_in_the_order_of_their_training(tmp_path):
    write_stage(tmp_path, "vision", when=100, summary=summary(44.0, 1.2))
    write_stage(tmp_path, "decoder", when=300, summary=summary(134.0, 1.4))
    write_stage(tmp_path, "mllm", when=200, summary=summary(33.0, 1.6))
    stages = read_stages(tmp_path)
    assert [stage.name for stage in stages] == ["vision", "mllm", "decoder"]
    assert add_up(stages) == {
        "train_seconds": 211.0,
        "train_cpu_seconds": 422.0,
        "peak_rss_gib": 1.6,
    }


def test_losses_become_curves_and_a_cut_line_is_left_out(tmp_path):
    write_stage(tmp_path, "mllm", summary=summary(1.0, 1.0))
    [stage] = read_stages(tmp_path)
    assert stage.curves == {
        "loss": [(10, 3.0), (20, 2.0)],
        "terms/language": [(10, 1.5), (20, 1.0)],
        "loss_per_task/ocr": [(20, 0.5)],
    }
    assert stage.steps == 20


def test_an_unfinished_stage_leaves_the_sums_out(tmp_path):
    write_stage(tmp_path, "vision", when=1, summary=summary(44.0, 1.2))
    write_stage(tmp_path, "mllm", when=2)
    stages = read_stages(tmp_path)
    assert stages[1].seconds is None
    assert stages[1].steps == 20
    assert add_up(stages) == {}


def test_a_single_stage_may_be_given(tmp_path):
    write_stage(tmp_path, "mllm", summary=summary(5.0, 1.0))
    [stage] = read_stages(tmp_path / "mllm")
    assert stage.name == "mllm"
    assert add_up([stage])["train_seconds"] == 5.0


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_training_has_no_stages(tmp_path, there):
    folder = tmp_path if there else tmp_path / "absent"
    assert read_stages(folder) == []
    assert add_up([]) == {}
