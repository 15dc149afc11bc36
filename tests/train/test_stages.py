"""Stages in order with a stand-in for training: what is skipped, refused, resumed and written."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError, DataError, TrainingError
from mllm_npu.train import stages
from mllm_npu.train.stages import Stopwatch, is_finished, train_experiment, train_stage, write_json


class FakeTrainer:
    """Trains nothing; stops or fails where it is told to."""

    def __init__(self, config, *, finishes=True, error=None, starts=True, mesh=None, sharded=False):
        self.starts = starts
        self.mesh = mesh or Mesh.single()
        self.placed = SimpleNamespace(is_sharded=sharded)
        self.config = config
        self.finishes = finishes
        self.error = error
        self.step = 0
        self.seconds, self.cpu_seconds = 10.0, 7.0
        self.resumed = None

    def run(self, *, resume):
        self.resumed = resume
        self.folder = Path(self.config.run_dir)
        self.found = [path.name for path in self.folder.iterdir()]
        if self.starts:
            (self.folder / "checkpoints").mkdir(exist_ok=True)
        if self.error is not None:
            raise self.error
        self.step = self.config.train.max_steps if self.finishes else 3
        return self.finishes

    def export(self):
        return f"model of {self.config.stage}"


class Workshop:
    """Stands for build.py: remembers what was built and saved."""

    def __init__(self):
        self.built = []
        self.saved = []
        self.exported = []
        self.options = {}

    def build_trainer(self, config, *, say):
        self.built.append(FakeTrainer(config, **self.options))
        return self.built[-1]

    def save_model_folder(self, model, config, folder):
        self.saved.append((model, folder))
        folder.mkdir(parents=True)

    def export_stage(self, folder, out, *, step):
        self.exported.append((folder, out, step))
        out.mkdir(parents=True)


@pytest.fixture
def workshop(monkeypatch):
    made = Workshop()
    monkeypatch.setattr(stages, "build_trainer", made.build_trainer)
    monkeypatch.setattr(stages, "export_stage", made.export_stage)
    monkeypatch.setattr(stages, "save_model_folder", made.save_model_folder)
    return made


def asked(tmp_path, *more, experiment="digits"):
    return [f"experiment={experiment}", f"output_dir={tmp_path}", *more]


def test_stages_run_in_order_each_in_its_folder(workshop, tmp_path):
    folders = train_experiment(asked(tmp_path))
    assert [trainer.config.stage for trainer in workshop.built] == ["vision", "mllm", "decoder"]
    assert folders == [tmp_path / "digits" / stage for stage in ("vision", "mllm", "decoder")]
    assert workshop.saved == [(f"model of {path.name}", path / "model") for path in folders]
    assert all(trainer.resumed for trainer in workshop.built)


def test_overrides_hold_for_every_stage(workshop, tmp_path):
    train_experiment(asked(tmp_path, "train.max_steps=5", "seed=3"))
    assert {trainer.config.train.max_steps for trainer in workshop.built} == {5}
    assert {trainer.config.seed for trainer in workshop.built} == {3}


def test_an_experiment_without_stages_is_one_stage(workshop, tmp_path):
    assert train_experiment(asked(tmp_path, experiment="digits/mllm")) == [
        tmp_path / "digits" / "mllm"
    ]


def test_every_stage_is_composed_before_the_first_is_trained(workshop, tmp_path):
    with pytest.raises(ConfigError, match="nonsense"):
        train_experiment(asked(tmp_path, "+nonsense=1"))
    assert workshop.built == []
    assert not list(tmp_path.iterdir())


def test_a_finished_stage_is_left_alone(workshop, tmp_path):
    said = []
    train_experiment(asked(tmp_path))
    train_experiment(asked(tmp_path), say=said.append)
    assert len(workshop.built) == 3
    assert [line for line in said if "trained already" in line] == said
    assert "--fresh" in said[0]


def test_an_interrupted_stage_leaves_no_summary_and_stops_the_experiment(workshop, tmp_path):
    workshop.options = {"finishes": False}
    said = []
    (reached,) = train_experiment(asked(tmp_path), say=said.append)
    assert [trainer.config.stage for trainer in workshop.built] == ["vision"]
    assert not is_finished(reached)
    assert not list(tmp_path.rglob("summary.json"))
    assert workshop.saved == []
    assert "stopped at step 3" in said[-1]


def test_the_same_command_goes_on_after_an_interruption(workshop, tmp_path):
    workshop.options = {"finishes": False}
    train_experiment(asked(tmp_path))
    workshop.options = {}
    train_experiment(asked(tmp_path))
    order = [trainer.config.stage for trainer in workshop.built]
    assert order == ["vision", "vision", "mllm", "decoder"]
    assert len(list(tmp_path.rglob("summary.json"))) == 3


def test_a_failing_stage_leaves_no_summary(workshop, tmp_path):
    workshop.options = {"error": TrainingError("loss is nan")}
    with pytest.raises(TrainingError):
        train_experiment(asked(tmp_path))
    assert not list(tmp_path.rglob("summary.json"))


def test_fresh_forgets_what_the_folder_holds(workshop, tmp_path):
    train_experiment(asked(tmp_path))
    left = tmp_path / "digits" / "mllm" / "left.txt"
    left.write_text("old")
    train_experiment(asked(tmp_path, "train.max_steps=7"), fresh=True)
    assert len(workshop.built) == 6
    assert not left.exists()


def test_fresh_deletes_nothing_but_runs(workshop, tmp_path):
    precious = tmp_path / "digits" / "decoder" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years")
    with pytest.raises(ConfigError, match=r"decoder holds no run.*not deleted"):
        train_experiment(asked(tmp_path), fresh=True)
    assert precious.read_text() == "years"
    assert workshop.built == []


def test_one_folder_for_several_stages_is_refused(workshop, tmp_path):
    with pytest.raises(ConfigError, match="3 stages need a folder each"):
        train_experiment(asked(tmp_path, f"run_dir={tmp_path}/one"))


def test_a_late_stage_of_another_configuration_is_refused_before_the_first_is_trained(
    workshop, tmp_path
):
    train_experiment(asked(tmp_path, "train.max_steps=9", experiment="digits/decoder"))
    with pytest.raises(ConfigError, match="decoder holds a run of another configuration"):
        train_experiment(asked(tmp_path))
    assert len(workshop.built) == 1


def test_what_cannot_be_built_leaves_nothing(monkeypatch, tmp_path):
    def refuse(config, *, say):
        raise ConfigError("no")

    monkeypatch.setattr(stages, "build_trainer", refuse)
    with pytest.raises(ConfigError, match="no"):
        train_experiment(asked(tmp_path))
    assert not list(tmp_path.iterdir())


def test_another_configuration_is_refused_and_named(workshop, tmp_path):
    train_experiment(asked(tmp_path))
    with pytest.raises(ConfigError, match=r"max_steps: 9.*--fresh"):
        train_experiment(asked(tmp_path, "train.max_steps=9"))
    assert len(workshop.built) == 3


def test_summary_says_time_memory_and_steps(workshop, tmp_path):
    workshop.options = {}
    (folder,) = train_experiment(asked(tmp_path, "train.max_steps=4", experiment="digits/vision"))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 4
    assert 10.0 <= summary["seconds"] < 60
    assert 7.0 <= summary["cpu_seconds"] < 60
    assert 0 < summary["peak_rss_gib"] < 64


def test_configuration_lies_in_the_folder_before_training(workshop, tmp_path):
    workshop.options = {"error": TrainingError("stop")}
    with pytest.raises(TrainingError):
        train_experiment(asked(tmp_path, experiment="digits/vision"))
    assert workshop.built[0].found == ["config.yaml"]
    assert "stage: vision" in (tmp_path / "digits" / "vision" / "config.yaml").read_text()


def test_a_run_that_never_started_leaves_no_folder(workshop, tmp_path):
    workshop.options = {"error": DataError("broken"), "starts": False}
    with pytest.raises(DataError):
        train_experiment(asked(tmp_path, experiment="digits/vision"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_run_without_a_checkpoint_may_be_begun_otherwise(workshop, tmp_path):
    vision = tmp_path / "digits" / "vision"
    vision.mkdir(parents=True)
    (vision / "config.yaml").write_text("train: {max_steps: 5}")
    train_experiment(asked(tmp_path, experiment="digits/vision"))
    assert is_finished(vision)


def test_a_place_that_cannot_be_written_is_refused(workshop, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        train_experiment(asked(blocked, experiment="digits/vision"))
    with pytest.raises(DataError, match="cannot be written"):
        write_json(blocked / "summary.json", {})


def test_one_stage_from_a_configuration(workshop, tmp_path):
    config = stages.load_config("training", asked(tmp_path, experiment="digits/decoder"))
    assert train_stage(config) == tmp_path / "digits" / "decoder"


def test_the_model_of_a_sharded_run_is_made_of_its_last_checkpoint(workshop, tmp_path):
    workshop.options = {"sharded": True}
    asked_for = asked(tmp_path, "train.max_steps=4", experiment="digits/vision")
    (folder,) = train_experiment(asked_for)
    assert workshop.exported == [(folder, folder / "model", 4)]
    assert workshop.saved == []
    assert is_finished(folder)


def test_other_ranks_write_nothing_and_wait_for_the_first(workshop, tmp_path):
    workshop.options = {"mesh": Mesh(rank=1, world_size=2)}
    folder = tmp_path / "digits" / "vision"
    folder.mkdir(parents=True)
    config = stages.load_config("training", asked(tmp_path, experiment="digits/vision"))
    waiting = threading.Thread(target=train_stage, args=(config,))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints"]
    write_json(folder / "summary.json", {"steps": 1})
    waiting.join(10)
    assert not waiting.is_alive()
    (folder / "summary.json").unlink()
    workshop.options["finishes"] = False  # a rank that is stopped does not wait
    assert not is_finished(train_stage(config))
    assert workshop.saved == workshop.exported == []


def test_what_does_not_change_what_is_learnt_may_differ_when_a_run_goes_on(workshop, tmp_path):
    change = [
        *("parallel=fsdp2", "parallel.recompute=full", "train.packs_per_step=8"),
        *("train.faults.not_finite=roll_back", "train.checkpoints.keep_last=5"),
        *("train.log_every=3", "train.checkpoint_every=7", "dataset.num_workers=1"),
        *("threads=2", "resume=3"),
    ]
    workshop.options = {"finishes": False}
    train_experiment(asked(tmp_path, experiment="digits/vision"))
    workshop.options = {}
    (folder,) = train_experiment(asked(tmp_path, *change, experiment="digits/vision"))
    assert is_finished(folder)


def test_stopwatch_counts_only_while_it_runs(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.5])
    cpu = iter([0.0, 1.0, 5.0, 5.5])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(stages.time, "process_time", lambda: next(cpu))
    watch = Stopwatch()
    watch.stop()
    assert (watch.seconds, watch.cpu_seconds) == (2.0, 1.0)
    watch.start()
    watch.stop()
    assert (watch.seconds, watch.cpu_seconds) == (5.5, 1.5)


def test_json_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": "ß"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ß"}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ß"}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
