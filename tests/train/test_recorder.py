import io
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from mllm_npu.errors import DataError
from mllm_npu.evaluate.training_log import read_stages
from mllm_npu.probe import Measured
from mllm_npu.train.faults import Fault, StepOutcome
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.trackers.json_lines import JsonLines
from mllm_npu.train.trackers.tensorboard import TensorBoard
from mllm_npu.train.trackers.tracker import Tracker

VALUES = {"loss": 0.5, "terms": {"language": 0.25}, "lr": 1e-3, "tokens_per_second": 1000.0}


class Notes(Tracker):
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def start(self, step, config=""):
        self.told.append(("start", step, config))

    def log(self, step, values):
        self.told.append(("log", step, values))

    def log_picture(self, step, name, picture_3HW):
        self.told.append(("picture", step, name, tuple(picture_3HW.shape)))

    def log_event(self, step, name, what):
        self.told.append(("event", step, name, what))

    def rewind(self, step):
        self.told.append(("rewind", step))

    def close(self):
        self.told.append(("close",))


class Broken(Notes):
    def log(self, step, values):
        raise OSError(28, "No space left on device")

    def close(self):
        raise OSError(28, "No space left on device")


def make(folder, *, terminal=False, width=200, **options):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width)
    return Recorder(folder=folder, console=console, **options), text


def read_lines(recorder):
    return [json.loads(line) for line in recorder.metrics_path.read_text().splitlines()]


@pytest.fixture
def fault(make_batch):
    def make_fault(step=12, *, loss=math.nan, grad_norm=1.0, kind="not_finite", action="skip"):
        batch = replace(make_batch("r"), keys=("7[b]",), sources=("digits",), tasks=("caption",))
        outcome = StepOutcome(
            step=step, loss=loss, grad_norm=grad_norm, batches=(batch,), own_losses=(loss,)
        )
        return Fault(outcome=outcome, kind=kind, action=action, limit=2.0)

    return make_fault


def test_writes_json_lines_and_a_plain_line_each(tmp_path):
    recorder, text = make(tmp_path / "run", name="digits")
    recorder.start(0, 100)
    recorder.log(10, VALUES)
    recorder.close()
    assert read_lines(recorder) == [{"step": 10, **VALUES}]
    shown = text.getvalue()
    assert "digits 10/100 loss 0.5000 language 0.2500 lr 1.00e-03 1000 tokens/s" in shown
    assert "s left" in shown
    assert shown.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]


def test_a_terminal_gets_a_bar_and_the_numbers_below_it(tmp_path):
    recorder, text = make(tmp_path, terminal=True, width=80)
    recorder.start(0, 20)
    recorder.advance(7)
    recorder.log(10, {**VALUES, "mfu": 0.434})
    recorder.close()
    recorder.close()
    assert "10/20" in text.getvalue()
    assert "loss 0.5000 language 0.2500 lr 1.00e-03 1000 tokens/s mfu 43 %" in text.getvalue()


def test_progress_can_be_silent(tmp_path):
    recorder, text = make(tmp_path, progress=False)
    recorder.start(0, 20)
    recorder.log(10, VALUES)
    recorder.log_probe(10, Measured(values={"validation": {"loss": 1.0}}))
    recorder.rewind(5)
    recorder.close()
    assert text.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_worth_telling_is_told(tmp_path, terminal):
    recorder, text = make(tmp_path, terminal=terminal)
    recorder.start(0, 20)
    faults = {"not_finite": 2, "spike": 0, "lowered": 1}
    recorder.log(10, {**VALUES, "mfu": 0.126, "data_wait_share": 0.31, "faults": faults})
    recorder.close()
    assert "mfu 13 % data wait 31 % faults (not finite 2, lowered 1)" in text.getvalue()


def test_what_goes_well_is_not_told(tmp_path):
    recorder, text = make(tmp_path)
    recorder.start(0, 20)
    recorder.log(10, {"lr": 1e-3, "data_wait_share": 0.04, "faults": {"spike": 0}})
    assert "train 10/20 lr 1.00e-03 0 s left\n" in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(59.0, "59 s left"), (599.0, "599 s left"), (1500.0, "25 min left"), (7500.0, "2 h 5 min")],
)
def test_time_left_is_in_units_that_fit(tmp_path, monkeypatch, seconds, told):
    recorder, text = make(tmp_path)
    clock = iter([0.0, seconds])
    monkeypatch.setattr("mllm_npu.train.recorder.time.perf_counter", lambda: next(clock))
    recorder.start(10, 30)
    recorder.log(20, VALUES)
    assert told in text.getvalue()


def test_what_was_left_out_is_shown_with_its_reasons(tmp_path):
    values = {**VALUES, "skipped": {"caption empty": 3, "picture cannot be read": 1}}
    for terminal in (False, True):
        recorder, text = make(tmp_path / str(terminal), terminal=terminal)
        recorder.start(0, 20)
        recorder.log(10, values)
        recorder.close()
        assert "skipped 4 (caption empty 3, picture cannot be read 1)" in text.getvalue()


def test_trackers_are_told_everything_in_order(tmp_path, fault):
    first, second = Notes(), Notes()
    recorder, text = make(
        tmp_path, trackers={"one": first, "two": second}, config="a: 1", name="digits"
    )
    measured = Measured(
        values={"validation": {"loss": 0.75}},
        pictures={"validation/drawn": torch.zeros(3, 4, 5, dtype=torch.uint8)},
    )
    recorder.start(0, 100)
    recorder.log(10, VALUES)
    recorder.log_probe(10, measured)
    recorder.advance(15)
    recorder.tell_fault(fault(14, action="roll_back"), rank=0)
    recorder.rewind(10)
    recorder.close()
    kinds = [entry[:2] for entry in first.told]
    assert kinds == [
        ("start", 0),
        ("log", 10),
        ("log", 10),
        ("picture", 10),
        ("event", 14),
        ("rewind", 10),
        ("event", 10),
        ("close",),
    ]
    assert first.told[0] == ("start", 0, "a: 1")
    assert first.told[3] == ("picture", 10, "validation/drawn", (3, 4, 5))
    assert first.told[6] == ("event", 10, "rollback", {"from_step": 15})
    assert second.told == first.told
    assert not recorder.metrics_path.exists()
    assert "digits 10/100 validation/loss 0.75\n" in text.getvalue()
    assert "digits 10/100 back from step 15\n" in text.getvalue()


def test_pictures_alone_make_no_line_of_numbers(tmp_path):
    notes = Notes()
    recorder, _ = make(tmp_path, trackers={"notes": notes})
    recorder.start(0, 10)
    picture = torch.zeros(3, 2, 2, dtype=torch.uint8)
    recorder.log_probe(5, Measured(values={}, pictures={"drawn": picture}))
    assert [entry[0] for entry in notes.told] == ["start", "picture"]


def test_of_a_probe_with_many_numbers_the_first_are_told_and_all_kept(tmp_path):
    notes = Notes()
    recorder, text = make(tmp_path, trackers={"notes": notes}, name="digits")
    recorder.start(0, 10)
    values = {"loss": 0.5, "loss_per_source": {f"set{n}": float(n) for n in range(9)}}
    recorder.log_probe(5, Measured(values={"validation": values}))
    (line,) = [line for line in text.getvalue().splitlines() if "validation" in line]
    assert line.count("validation/") == 6
    assert line.endswith("validation/loss_per_source/set4 4 and 4 more")
    assert [entry[0] for entry in notes.told] == ["start", "log"]


def test_a_fault_is_told_kept_and_recorded(tmp_path, fault):
    recorder, text = make(tmp_path, name="digits", progress=False)
    recorder.start(0, 100)
    recorder.tell_fault(fault(12, action="lower"), rank=0)
    shown = text.getvalue()
    assert shown.count("\n") == 1
    assert "digits rank 0: step 12: loss nan, gradient norm 1.0." in shown
    assert "digits: 7[b]." in shown
    assert "the learning rate is lowered" in shown
    folder = tmp_path / "faults" / "step-00000012-rank0"
    assert str(folder) in shown
    assert json.loads((folder / "about.json").read_text())["batches"][0]["keys"] == ["7[b]"]
    [line] = read_lines(recorder)
    assert line["step"] == 12
    assert line["fault"].pop("text").startswith("step 12: loss nan")
    assert line["fault"] == {
        "kind": "not_finite",
        "action": "lower",
        "loss": "nan",
        "grad_norm": 1.0,
        "limit": 2.0,
    }


def test_other_ranks_tell_of_faults_and_do_nothing_else(tmp_path, fault):
    notes = Notes()
    recorder, text = make(tmp_path, trackers={"notes": notes})
    recorder.advance(3)
    recorder.log(10, VALUES)
    recorder.log_probe(10, Measured(values={"validation": {"loss": 1.0}}))
    recorder.rewind(5)
    assert text.getvalue() == ""
    recorder.tell_fault(fault(12), rank=3)
    assert "train rank 3: step 12" in text.getvalue()
    assert (tmp_path / "faults" / "step-00000012-rank3" / "about.json").is_file()
    assert notes.told == []


def test_each_rank_keeps_so_many_batches_also_over_a_resume(tmp_path, fault):
    recorder, text = make(tmp_path, most_dumps=2)
    recorder.tell_fault(fault(1), rank=1)
    for step in (1, 2, 3):
        recorder.tell_fault(fault(step), rank=0)
    resumed, _ = make(tmp_path, most_dumps=2)
    resumed.tell_fault(fault(4), rank=0)
    assert sorted(path.name for path in (tmp_path / "faults").iterdir()) == [
        "step-00000001-rank0",
        "step-00000001-rank1",
        "step-00000002-rank0",
    ]
    assert text.getvalue().count("kept in") == 3
    nothing, _ = make(tmp_path / "other", most_dumps=0)
    nothing.tell_fault(fault(1), rank=0)
    assert not (tmp_path / "other").exists()


def test_after_a_rollback_a_curve_has_one_point_per_step(tmp_path, fault):
    recorder, _ = make(tmp_path / "run")
    recorder.start(0, 50)
    for step in (10, 20, 30):
        recorder.log(step, {"loss": float(step)})
    recorder.tell_fault(fault(29, action="roll_back"), rank=0)
    recorder.rewind(20)
    for step in (30, 40):
        recorder.log(step, {"loss": step + 0.5})
    recorder.close()
    steps = [(line["step"], *(line.keys() - {"step"})) for line in read_lines(recorder)]
    assert steps == [
        (10, "loss"),
        (20, "loss"),
        (29, "fault"),
        (20, "rollback"),
        (30, "loss"),
        (40, "loss"),
    ]
    [stage] = read_stages(tmp_path)
    assert stage.curves["loss"] == [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5)]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    recorder, _ = make(tmp_path / "file" / "run")
    with pytest.raises(DataError, match="choose a folder"):
        recorder.start(0, 1)


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_what_stands_in_the_way_is_one_message(tmp_path, name):
    if name == "tensorboard":
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).mkdir()
    trackers = {
        "jsonl": JsonLines(folder=tmp_path),
        "tensorboard": TensorBoard(folder=tmp_path / "tensorboard"),
    }
    recorder = Recorder(folder=tmp_path, trackers=trackers, progress=False)
    with pytest.raises(DataError, match="Metrics were to be written") as caught:
        recorder.start(0, 10)
    assert name in str(caught.value)


def test_a_disk_that_fills_up_is_one_message(tmp_path):
    recorder = Recorder(folder=tmp_path, progress=False)
    recorder.start(0, 10)
    recorder.metrics_path.mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl.*Make room.*last checkpoint"):
        recorder.log(1, {"loss": 1.0})


def test_a_tracker_that_fails_leaves_no_other_one_open(tmp_path):
    before, behind = Notes(), Notes()
    trackers = {"before": before, "broken": Broken(), "behind": behind}
    recorder, _ = make(tmp_path, trackers=trackers)
    recorder.start(0, 10)
    with pytest.raises(DataError, match="No space left"):
        recorder.log(1, VALUES)
    with pytest.raises(DataError, match="No space left"):
        recorder.close()
    assert before.told[-1] == behind.told[-1] == ("close",)
