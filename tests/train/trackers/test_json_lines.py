import json

import pytest
import torch
from PIL import Image

from mllm_npu.train.trackers.json_lines import JsonLines


@pytest.fixture
def tracker(tmp_path):
    tracker = JsonLines(folder=tmp_path / "run")
    tracker.start(0)
    return tracker


def read(tracker):
    return [json.loads(line) for line in tracker.path.read_text().splitlines()]


def steps(tracker):
    return [line["step"] for line in read(tracker)]


def test_lines_keep_their_dictionaries(tracker):
    tracker.log(10, {"loss": 0.5, "terms": {"language": 0.25}})
    tracker.log_event(11, "fault", {"kind": "spike"})
    tracker.close()
    assert read(tracker) == [
        {"step": 10, "loss": 0.5, "terms": {"language": 0.25}},
        {"step": 11, "fault": {"kind": "spike"}},
    ]


def test_a_start_leaves_no_file_behind(tracker):
    assert list(tracker.folder.iterdir()) == []


def test_resume_drops_what_came_after_the_checkpoint(tracker):
    for step in (10, 20, 30):
        tracker.log(step, {"loss": 1.0})
    tracker.log_event(27, "fault", {})
    with tracker.path.open("a") as file:
        file.write('{"step": 40, "lo')
    tracker.start(20)
    assert steps(tracker) == [10, 20]
    tracker.log(30, {"loss": 1.0})
    assert steps(tracker) == [10, 20, 30]
    tracker.start(0)
    assert steps(tracker) == []


def test_lines_that_are_no_text_do_not_stop_a_resumed_run(tracker):
    tracker.path.write_bytes(b'{"step": 1}\n\xff\xfe\n[1, 2]\n{"step": "x"}\n')
    tracker.start(1)
    assert tracker.path.read_text() == '{"step": 1}\n'


def roll_back(tracker, *, to, at):
    """Numbers up to a fault, and the way back."""
    tracker.log(at, {"loss": 9.0})
    tracker.log_event(at - 1, "fault", {})
    tracker.rewind(to)
    tracker.log_event(to, "rollback", {"from_step": at})


def told(tracker):
    return [(line["step"], *(line.keys() - {"step"})) for line in read(tracker)]


def test_a_rollback_drops_numbers_and_keeps_events(tracker):
    tracker.log(20, {"loss": 1.0})
    roll_back(tracker, to=20, at=30)
    assert told(tracker) == [(20, "loss"), (29, "fault"), (20, "rollback")]


def test_a_resume_behind_a_rollback_keeps_what_led_to_it(tracker):
    tracker.log(20, {"loss": 1.0})
    roll_back(tracker, to=20, at=40)
    for step in (30, 40):
        tracker.log(step, {"loss": 2.0})
    tracker.start(30)
    assert told(tracker) == [(20, "loss"), (39, "fault"), (20, "rollback"), (30, "loss")]


def test_a_resume_from_before_a_rollback_forgets_it(tracker):
    """The checkpoint knows nothing of the rollback, so the same fault comes again."""
    tracker.log(10, {"loss": 1.0})
    tracker.log(20, {"loss": 1.0})
    roll_back(tracker, to=20, at=30)
    tracker.start(20)
    assert told(tracker) == [(10, "loss"), (20, "loss"), (20, "rollback")]
    tracker.start(10)
    assert told(tracker) == [(10, "loss")]


def test_a_rewind_before_the_first_line_is_no_error(tracker):
    tracker.rewind(0)
    assert read(tracker) == []


def test_pictures_are_files_that_others_can_read(tracker):
    picture = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    tracker.log_picture(100, "validation/a drawing", picture)
    [file] = (tracker.folder / "pictures").iterdir()
    assert file.name == "step-00000100-validation-a-drawing.png"
    with Image.open(file) as read_back:
        assert read_back.size == (7, 5)
        pixels = torch.tensor(list(read_back.convert("RGB").tobytes()), dtype=torch.uint8)
    assert torch.equal(pixels.reshape(5, 7, 3).permute(2, 0, 1), picture)
