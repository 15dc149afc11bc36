import sys
import types

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.trackers.swanlab import SwanLab


class FakeRun:
    def __init__(self):
        self.logged, self.num_finished = [], 0

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.num_finished += 1


class AuthenticationError(Exception):
    pass


@pytest.fixture
def package(monkeypatch):
    """A package of the calls that are used, which writes them down."""
    module = types.ModuleType("swanlab")
    module.exceptions = types.SimpleNamespace(AuthenticationError=AuthenticationError)
    module.Image = lambda pixels: ("image", pixels)
    module.Text = lambda text: ("text", text)
    module.runs, module.refusal = [], None

    def init(**options):
        if module.refusal is not None:
            raise module.refusal
        module.runs.append((FakeRun(), options))
        return module.runs[-1][0]

    module.init = init
    monkeypatch.setitem(sys.modules, "swanlab", module)
    return module


def make(folder, **options):
    return SwanLab(folder=folder, project="mllm", **{"name": "digits/mllm", **options})


def test_opens_a_run_of_the_service(package, tmp_path):
    make(tmp_path / "run", mode="offline", workspace="team").start(0, "train:\n  lr: 0.1\n")
    [(_, options)] = package.runs
    assert options.pop("id") == (tmp_path / "run" / "swanlab_run.txt").read_text().strip()
    assert options == {
        "project": "mllm",
        "name": "digits/mllm",
        "workspace": "team",
        "log_dir": str(tmp_path / "run" / "swanlab"),
        "resume": "allow",
        "reinit": True,
        "mode": "offline",
        "config": {"train": {"lr": 0.1}},
    }


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
    tracker.log_event(12, "fault", {"kind": "spike"})
    tracker.rewind(5)
    [(run, _)] = package.runs
    numbers, (step, drawn), event = run.logged
    assert numbers == (10, {"loss": 0.5, "terms/language": 0.25})
    kind, pixels = drawn["validation/drawn"]
    assert (step, kind, pixels.dtype.name) == (10, "image", "uint8")
    assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), picture)
    assert event == (12, {"fault": ("text", '{\n "kind": "spike"\n}')})


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


@pytest.mark.parametrize(
    "refusal", [RuntimeError("no key"), AuthenticationError("no key"), ConnectionError("no key")]
)
def test_a_service_that_does_not_let_the_run_in_is_one_message(package, tmp_path, refusal):
    package.refusal = refusal
    with pytest.raises(ConfigError, match=r"no key.*swanlab login.*swanlab\.mode=offline"):
        make(tmp_path).start(0)


def test_a_package_that_is_missing_is_told_when_the_run_is_built(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "swanlab", None)
    with pytest.raises(ConfigError, match=r"mllm-npu\[swanlab\]"):
        make(tmp_path)
