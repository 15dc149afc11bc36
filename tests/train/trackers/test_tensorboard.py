import io

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.train.trackers.tensorboard import TensorBoard


@pytest.fixture
def tracker(tmp_path):
    tracker = TensorBoard(folder=tmp_path / "tensorboard")
    yield tracker
    tracker.close()


def read(tracker):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker.close()
    events = EventAccumulator(str(tracker.folder), size_guidance={"images": 0, "tensors": 0})
    return events.Reload()


def curve(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


def text(events, name):
    [event] = events.Tensors(f"{name}/text_summary")
    return event.step, event.tensor_proto.string_val[0].decode()


def test_gets_every_number(tracker):
    tracker.start(0)
    tracker.log(10, {"loss": 0.5, "terms": {"language": 0.25, "image": 2}})
    tracker.log(20, {"loss": 0.25})
    events = read(tracker)
    assert curve(events, "loss") == [(10, 0.5), (20, 0.25)]
    assert curve(events, "terms/image") == [(10, 2.0)]
    assert sorted(events.Tags()["scalars"]) == ["loss", "terms/image", "terms/language"]


def test_gets_pictures(tracker):
    picture = torch.randint(0, 256, (3, 6, 4), dtype=torch.uint8)
    tracker.start(0)
    tracker.log_picture(30, "validation/drawn", picture)
    [event] = read(tracker).Images("validation/drawn")
    assert (event.step, event.width, event.height) == (30, 4, 6)
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        assert np.array_equal(np.asarray(shown), picture.permute(1, 2, 0).numpy())


def test_gets_the_config_and_events_as_they_are(tracker):
    tracker.start(0, "train:\n  lr: 0.1\n")
    tracker.log_event(12, "fault", {"kind": "spike"})
    events = read(tracker)
    assert text(events, "config") == (0, "    train:\n      lr: 0.1")
    assert text(events, "fault") == (12, '    {\n     "kind": "spike"\n    }')


def test_a_resume_hides_what_came_after_the_checkpoint(tracker):
    tracker.start(0)
    for step in (10, 20, 30):
        tracker.log(step, {"loss": float(step)})
    tracker.close()
    tracker.start(20)
    tracker.log(30, {"loss": 0.5})
    assert curve(read(tracker), "loss") == [(10, 10.0), (20, 20.0), (30, 0.5)]


def test_a_rollback_hides_what_it_takes_back(tracker):
    tracker.start(0)
    for step in (10, 20, 30):
        tracker.log(step, {"loss": float(step)})
    tracker.rewind(10)
    tracker.log(20, {"loss": 0.5})
    assert curve(read(tracker), "loss") == [(10, 10.0), (20, 0.5)]


def test_a_run_that_begins_anew_hides_what_was_there(tracker):
    tracker.start(0)
    tracker.log(10, {"loss": 1.0})
    tracker.close()
    tracker.start(0)
    tracker.log(20, {"loss": 2.0})
    assert curve(read(tracker), "loss") == [(20, 2.0)]


def test_does_nothing_before_its_start(tracker):
    tracker.log(1, {"loss": 1.0})
    tracker.log_picture(1, "drawn", torch.zeros(3, 2, 2, dtype=torch.uint8))
    tracker.log_event(1, "fault", {})
    tracker.rewind(0)
    tracker.close()
    assert not tracker.folder.exists()
