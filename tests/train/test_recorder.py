import io
import json

import pytest
from rich.console import Console

from mllm_npu.errors import DataError
from mllm_npu.train.recorder import Recorder, flatten

VALUES = {"loss": 0.5, "terms": {"language": 0.25}, "lr": 1e-3, "tokens_per_second": 1000.0}


def make(folder, *, terminal=False, **options):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    options = {"tensorboard": False, **options}
    return Recorder(folder=folder, console=console, **options), text


def read_steps(recorder):
    return [json.loads(line)["step"] for line in recorder.metrics_path.read_text().splitlines()]


def test_writes_json_lines_and_a_plain_line_each(tmp_path):
    recorder, text = make(tmp_path / "run", name="digits")
    recorder.start(0, 100)
    recorder.log(10, VALUES)
    recorder.close()
    line = json.loads(recorder.metrics_path.read_text())
    assert line == {"step": 10, **VALUES}
    shown = text.getvalue()
    assert "digits 10/100 loss 0.5000 language 0.2500 lr 1.00e-03 1000 tokens/s" in shown
    assert "s left" in shown
    assert shown.count("\n") == 1


def test_a_terminal_gets_a_bar(tmp_path):
    recorder, text = make(tmp_path, terminal=True)
    recorder.start(0, 20)
    recorder.advance(7)
    recorder.log(10, VALUES)
    recorder.close()
    recorder.close()
    assert "10/20" in text.getvalue()
    assert "loss 0.5000" in text.getvalue()


def test_progress_can_be_silent(tmp_path):
    recorder, text = make(tmp_path, progress=False)
    recorder.start(0, 20)
    recorder.log(10, VALUES)
    recorder.close()
    assert text.getvalue() == ""


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    recorder, _ = make(tmp_path)
    recorder.start(0, 50)
    for step in (10, 20, 30):
        recorder.log(step, VALUES)
    with recorder.metrics_path.open("a") as file:
        file.write('{"step": 40, "lo')
    recorder.start(20, 50)
    assert read_steps(recorder) == [10, 20]
    recorder.log(30, VALUES)
    assert read_steps(recorder) == [10, 20, 30]
    recorder.start(0, 50)
    assert read_steps(recorder) == []


def test_tensorboard_gets_every_number(tmp_path):
    recorder, _ = make(tmp_path, tensorboard=True)
    recorder.start(0, 20)
    recorder.log(10, VALUES)
    recorder.close()
    data = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"terms/language" in data
    assert b"tokens_per_second" in data


def test_flatten_joins_names():
    assert list(flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}})) == [
        ("a", 1.0),
        ("b/c", 2.0),
        ("b/d/e", 3.0),
    ]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    recorder, _ = make(tmp_path / "file" / "run")
    with pytest.raises(DataError, match="Choose a folder"):
        recorder.start(0, 1)


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_what_stands_in_the_way_is_one_message(tmp_path, name):
    if name == "tensorboard":
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="Metrics were to be written"):
        Recorder(folder=tmp_path, progress=False).start(0, 10)


def test_a_disk_that_fills_up_is_one_message(tmp_path):
    recorder = Recorder(folder=tmp_path, tensorboard=False, progress=False)
    recorder.start(0, 10)
    recorder.metrics_path.unlink(missing_ok=True)
    recorder.metrics_path.mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl cannot be written.*last checkpoint"):
        recorder.log(1, {"loss": 1.0})


def test_lines_that_are_no_text_do_not_stop_a_resumed_run(tmp_path):
    recorder = Recorder(folder=tmp_path, tensorboard=False, progress=False)
    recorder.metrics_path.write_bytes(b'{"step": 1}\n\xff\xfe\n')
    recorder.start(1, 10)
    assert recorder.metrics_path.read_text() == '{"step": 1}\n'


def test_what_was_left_out_is_shown_with_its_reasons(tmp_path):
    values = {**VALUES, "skipped": {"caption empty": 3, "picture cannot be read": 1}}
    for terminal in (False, True):
        recorder, text = make(tmp_path / str(terminal), terminal=terminal)
        recorder._console.width = 200
        recorder.start(0, 20)
        recorder.log(10, values)
        recorder.close()
        assert "skipped 4 (caption empty 3, picture cannot be read 1)" in text.getvalue()
    assert dict(flatten(values))["skipped/caption empty"] == 3
