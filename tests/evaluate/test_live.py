"""The live model gets the scores it would get when exported, and trains on as if not asked."""

import json

import pytest
import torch
from launching import launch
from PIL import Image
from play_probes import CPU, ask_live, make_live, make_processor, make_tasks

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.live import LiveTasks, draw_grid
from mllm_npu.evaluate.runner import run_tasks
from mllm_npu.inference.engine import Engine

QUESTIONS = {"say": 3, "draw": 1}
FSDP = {"kind": "fsdp2"}
RUNS = {
    "plain": {"questions": {}, "parallel": FSDP},
    "unequal": {"questions": QUESTIONS, "parallel": FSDP},
    "one rank has none": {"questions": {"say": 1}, "parallel": FSDP},
    "shared sequences": {"questions": QUESTIONS, "parallel": FSDP | {"sequence_size": 2}},
}


def logged(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return list(map(json.loads, lines))


def losses(folder):
    return {line["step"]: line["loss"] for line in logged(folder) if "loss" in line}


def measured(folder):
    return [line["validation"]["tasks"] for line in logged(folder) if "validation" in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in one process that was asked after every update, and its folder."""
    folder = tmp_path_factory.mktemp("live")
    trainer = make_live(folder / "asked", questions=QUESTIONS)
    assert trainer.run()
    return trainer, folder


def test_scores_are_those_of_the_exported_model(trained):
    trainer, folder = trained
    told = measured(folder / "asked")
    assert len(told) == 3
    engine = Engine(model=trainer.export(), processor=make_processor(), device=CPU)
    results = run_tasks(make_tasks(QUESTIONS), engine)
    scores = {result.task.name: result.value for result in results}
    assert told[-1] == pytest.approx(scores, rel=1e-12)
    assert len({values["say"] for values in told}) > 1
    (drawn,) = results[1].records
    picture = draw_grid([drawn.reply], 32)
    with Image.open(next((folder / "asked").glob("**/*draw*.png"))) as kept:
        assert kept.size == (picture.shape[2], picture.shape[1])


def test_training_goes_on_as_if_nobody_had_asked(trained, tmp_path):
    _, folder = trained
    assert make_live(tmp_path / "plain").run()
    assert losses(folder / "asked") == losses(tmp_path / "plain")


@pytest.mark.parametrize("training", [True, False])
def test_every_part_is_in_the_mode_it_was_in(trained, training):
    trainer, _ = trained
    module = trainer.objective.train(training)
    modes = {name: part.training for name, part in module.named_modules()}
    assert trainer.observer.probes["tasks"].measure(trainer.placed).values["say"] > 0
    assert {name: part.training for name, part in module.named_modules()} == modes


def test_also_behind_a_task_that_fails(trained):
    trainer, _ = trained
    (task,) = make_tasks({"say": 1})
    task.score = lambda example, reply: 1 / 0
    probe = LiveTasks(every=1, processor=make_processor(), tasks=[task])
    trainer.objective.train()
    with pytest.raises(ZeroDivisionError):
        probe.measure(trainer.placed)
    assert trainer.objective.training


def test_the_model_is_not_moved_for_its_parameters_may_wait_elsewhere(trained, monkeypatch):
    trainer, _ = trained
    monkeypatch.setattr(type(trainer.objective.model), "to", None)
    assert trainer.observer.probes["tasks"].measure(trainer.placed).values["say"] > 0


def test_a_limit_takes_the_first_examples(trained):
    trainer, _ = trained
    processor = make_processor()

    def score(limit, num):
        probe = LiveTasks(every=1, processor=processor, tasks=make_tasks({"say": num}), limit=limit)
        return probe.measure(trainer.placed).values["say"]

    assert score(2, 5) == score(None, 2) != score(None, 5)


def test_a_task_without_examples_scores_nought(trained):
    trainer, _ = trained
    probe = LiveTasks(every=1, processor=make_processor(), tasks=make_tasks({"say": 0}))
    measured = probe.measure(trainer.placed)
    assert (measured.values, measured.pictures) == ({"say": 0.0}, {})


def test_tasks_must_be_there_and_have_names_that_differ():
    for questions in ((), ("say", "say")):
        tasks = [task for name in questions for task in make_tasks({name: 1})]
        with pytest.raises(ConfigError, match="names that differ"):
            LiveTasks(every=1, processor=None, tasks=tasks)


@pytest.fixture
def reply(fakes):
    def make(*sizes):
        colours = ("red", "lime", "blue")
        pictures = [Image.new("RGB", s, colours[n % 3]) for n, s in enumerate(sizes)]
        return fakes.make_reply(pictures=pictures)

    return make


def test_pictures_stand_side_by_side_in_rows_of_eight(reply):
    grid = draw_grid([reply((4, 6)), reply(*[(4, 6)] * 9)], 32)
    assert (tuple(grid.shape), grid.dtype) == ((3, 2 * (6 + 2), 8 * (4 + 2)), torch.uint8)
    assert grid[:, 0, 0].tolist() == [255, 0, 0]
    assert grid[:, 5, 3].tolist() == [255, 0, 0]
    assert grid[:, 0, 4].tolist() == grid[:, 6, 0].tolist() == [255, 255, 255]
    assert grid[:, 8, 6].tolist() == [0, 0, 255]  # the tenth is the second of its row
    assert grid[:, 8, 12:].min() == 255
    assert grid.is_contiguous()


def test_few_pictures_take_no_more_room_than_they_need(reply):
    assert draw_grid([reply((4, 6)), reply(), reply((4, 6))], 32).shape == (3, 8, 12)
    assert draw_grid([reply(*[(4, 6)] * 5)], 2).shape == (3, 8, 12)


def test_pictures_of_several_sizes_get_the_room_of_the_largest(reply):
    grid = draw_grid([reply((4, 6), (10, 2))], 32)
    assert grid.shape == (3, 8, 24)
    assert grid[:, 1, 21].tolist() == [0, 255, 0]
    assert grid[:, 2, 12].tolist() == [255, 255, 255]


def test_without_pictures_there_is_no_grid(reply):
    assert draw_grid([reply()], 32) is None
    assert draw_grid([], 32) is None
    assert draw_grid([reply((4, 6))], 0) is None


@pytest.mark.slow
def test_two_ranks_that_answer_unequally_often_train_on_and_agree(tmp_path, trained):
    found = launch(ask_live, size=2, folder=tmp_path, runs=RUNS)
    assert found[0] == found[1]
    assert all(run["training"] for run in found[0].values())
    for name in ("unequal", "one rank has none"):
        assert losses(tmp_path / name) == losses(tmp_path / "plain")
    assert losses(tmp_path / "shared sequences") == pytest.approx(losses(tmp_path / "plain"))
    alone = measured(trained[1] / "asked")
    for name in ("unequal", "shared sequences"):
        assert found[0][name]["values"] == measured(tmp_path / name)[-1]
        assert found[0][name]["values"] == pytest.approx(alone[-1], rel=1e-3)
