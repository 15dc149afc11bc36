"""What is asked reaches the run, and how a training ended is told in words and by its exit code."""

import json
import threading

import pytest

from mllm_npu.cli import main
from mllm_npu.commands import training
from mllm_npu.errors import CheckpointError, ConfigError, MllmNpuError, TrainingError
from mllm_npu.train import stages


class Mesh:
    is_main = True


class FakeTrainer:
    """Trains nothing; ends as it is told."""

    mesh = Mesh()
    seconds = cpu_seconds = 1.0
    placed = type("Placed", (), {"is_sharded": False})

    def __init__(self, config, ending):
        self.config, self.ending = config, ending
        self.step = 3

    def run(self, *, resume):
        self.resumed = resume
        if isinstance(self.ending, Exception):
            raise self.ending
        return self.ending

    def export(self):
        return None


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Gives the command with a trainer that ends so; what it was built with."""
    built = []

    def give(*typed, ending=True):
        def build_trainer(config, *, say):
            built.append(FakeTrainer(config, ending))
            return built[-1]

        monkeypatch.setattr(stages, "build_trainer", build_trainer)
        monkeypatch.setattr(stages, "save_model_folder", lambda *_: None)
        code = main(["train", "experiment=digits/mllm", f"output_dir={tmp_path}", *typed])
        return code, built[-1] if built else None

    return give


def test_a_training_that_comes_to_its_end_says_where_it_is(train, tmp_path, capsys):
    code, _ = train()
    assert code == 0
    said = capsys.readouterr().err.split("\n")
    folder = tmp_path / "digits" / "mllm"
    assert said == [f"training {folder}", f"done: {folder}", ""]
    assert json.loads((folder / "summary.json").read_text())["steps"] == 3


def test_a_stop_is_no_failure_and_says_how_to_go_on(train, capsys):
    """Whoever starts it again and again, such as torchrun, must not take it for one."""
    code, _ = train(ending=False)
    assert code == 0
    said = capsys.readouterr().err
    assert "stopped at step 3; the same command goes on from there" in said
    assert "done" not in said


@pytest.mark.parametrize("error", [TrainingError, CheckpointError, ConfigError])
def test_a_training_that_fails_ends_with_two_and_one_line(train, capsys, error):
    code, _ = train(ending=error("the disk\n is full"))
    assert code == 2
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert last == f"{error.__name__}: the disk is full"


def test_a_bug_is_no_refusal(train):
    with pytest.raises(ZeroDivisionError):
        train(ending=ZeroDivisionError())


@pytest.mark.parametrize(
    ("typed", "resumed"), [([], "auto"), (["resume=never"], "never"), (["resume=5"], 5)]
)
def test_how_to_resume_reaches_the_run(train, typed, resumed):
    _, trainer = train(*typed)
    assert (trainer.resumed, type(trainer.resumed)) == (resumed, type(resumed))


@pytest.mark.parametrize("value", ["newest", "5.5", "true"])
def test_another_way_to_resume_is_refused(train, capsys, value):
    code, trainer = train(f"resume={value}")
    assert (code, trainer) == (2, None)
    error = capsys.readouterr().err
    assert error.startswith("ConfigError: resume")
    assert len(error.strip().split("\n")) == 1


FREE = [
    *("parallel=fsdp2", "parallel.timeout_seconds=9", "device=cpu", "threads=2", "resume=never"),
    *("profile=true", "preflight=false", "validation=digits", "dataset.num_workers=1"),
    *("train.packs_per_step=4", "train.accumulate=2", "train.log_every=3"),
    *("train.checkpoint_every=7", "train.checkpoints.keep_last=9", "train.faults.spike=skip"),
    *("train.throughput.count_flops=false", "train.profile.wait=5", "tracker=[jsonl]"),
]
BOUND = ["train.max_steps=7", "dataset.tokens_per_pack=99"]


def test_what_does_not_change_the_result_may_be_chosen_anew(train, tmp_path):
    train(ending=False)
    (tmp_path / "digits" / "mllm" / "checkpoints").mkdir()
    assert train(*FREE, ending=False)[0] == 0


@pytest.mark.parametrize("bound", BOUND)
def test_what_changes_the_result_is_refused_where_a_run_has_begun(train, tmp_path, capsys, bound):
    assert train(bound, ending=False)[0] == 0
    (tmp_path / "digits" / "mllm" / "checkpoints").mkdir()
    assert train(ending=False)[0] == 2
    error = capsys.readouterr().err
    assert bound.split(".")[-1].replace("=", ": ") in error
    assert "--fresh" in error


def test_what_nothing_was_kept_of_may_be_begun_otherwise(train):
    assert train(ending=False)[0] == 0
    assert train(BOUND[0], ending=False)[0] == 0


def test_ranks_that_forget_a_run_together_do_not_get_in_each_others_way(tmp_path):
    folder, errors = tmp_path / "run" / "stage", []

    def forget(start):
        start.wait()
        try:
            stages._forget(folder)
        except (MllmNpuError, OSError) as error:
            errors.append(error)

    for _ in range(30):
        (folder / "checkpoints").mkdir(parents=True)
        for name in ("config.yaml", "checkpoints/a", "checkpoints/b", "metrics.jsonl"):
            (folder / name).touch()
        start = threading.Barrier(3)
        threads = [threading.Thread(target=forget, args=(start,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert list(folder.parent.iterdir()) == []


def test_a_model_folder_gives_its_parts_before_what_is_typed(train, monkeypatch, tmp_path):
    asked = []

    def offer_model(folder):
        asked.append(folder)
        return ["name=given", "seed=5"]

    offers = type("Offers", (), {"offer_model": staticmethod(offer_model)})
    later = training.later
    monkeypatch.setattr(
        training, "later", lambda name: offers if name == "zoo.train_further" else later(name)
    )
    code, trainer = train("--model", str(tmp_path / "ours"), "name=typed")
    assert code == 0
    assert asked == [tmp_path / "ours"]
    assert (trainer.config.name, trainer.config.seed) == ("typed", 5)
