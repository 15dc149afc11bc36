import sys
import types

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.trackers.wandb import Wandb


class FakeRun:
    def __init__(self):
        self.logged, self.axes, self.num_finished = [], [], 0

    def define_metric(self, name, **options):
        self.axes.append((name, options))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.num_finished += 1


@pytest.fixture
def package(monkeypatch):
    """A package of the calls that are used, which writes them down."""
    module = types.ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.Image = lambda pixels: ("image", pixels)
    module.Html = lambda text: ("html", text)
    module.runs, module.refusal = [], None

    def init(**options):
        if module.refusal is not None:
            raise module.refusal
        module.runs.append((FakeRun(), options))
        return module.runs[-1][0]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def make(folder, **options):
    return Wandb(folder=folder, project="mllm", **{"name": "digits/mllm", **options})


def test_opens_a_run_of_the_service(package, tmp_path):
    make(tmp_path / "run", mode="offline", entity="team").start(0, "train:\n  lr: 0.1\n")
    [(run, options)] = package.runs
    assert options.pop("id") == (tmp_path / "run" / "wandb_run.txt").read_text().strip()
    assert options == {
        "project": "mllm",
        "name": "digits/mllm",
        "entity": "team",
        "dir": str(tmp_path / "run"),
        "resume": "allow",
        "reinit": "create_new",
        "mode": "offline",
        "config": {"train": {"lr": 0.1}},
        "allow_val_change": True,
    }
    assert run.axes == [("step", {"hidden": True}), ("*", {"step_metric": "step"})]


def test_a_resumed_run_goes_on_in_the_same_one(package, tmp_path):
    for step in (0, 20, 0):
        tracker = make(tmp_path)
        tracker.start(step)
        tracker.close()
    first, resumed, anew = [options["id"] for _, options in package.runs]
    assert first == resumed
    assert anew != first


def test_sends_numbers_pictures_and_events(package, tmp_path):
    tracker = make(tmp_path)
    tracker.start(0)
    picture = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)
    tracker.log(10, {"loss": 0.5, "terms": {"language": 0.25}})
    tracker.log_picture(10, "validation/drawn", picture)
    tracker.log_event(12, "fault", {"text": "<a>"})
    tracker.rewind(5)
    [(run, _)] = package.runs
    numbers, drawn, event = run.logged
    assert numbers == {"step": 10, "loss": 0.5, "terms/language": 0.25}
    assert drawn["step"] == 10
    kind, pixels = drawn["validation/drawn"]
    assert (kind, pixels.dtype.name, pixels.shape) == ("image", "uint8", (4, 6, 3))
    assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), picture)
    assert event == {"step": 12, "fault": ("html", event["fault"][1])}
    assert "&lt;a&gt;" in event["fault"][1]


def test_ends_the_run_once(package, tmp_path):
    tracker = make(tmp_path)
    tracker.close()
    tracker.start(0)
    tracker.close()
    tracker.close()
    tracker.log(10, {"loss": 1.0})
    [(run, _)] = package.runs
    assert run.num_finished == 1
    assert run.logged == []


def test_a_service_that_does_not_let_the_run_in_is_one_message(package, tmp_path):
    package.refusal = package.Error("No API key configured.")
    with pytest.raises(ConfigError, match=r"No API key.*wandb login.*wandb\.mode=offline"):
        make(tmp_path).start(0)


def test_a_package_that_is_missing_is_told_when_the_run_is_built(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"mllm-npu\[wandb\]"):
        make(tmp_path)
