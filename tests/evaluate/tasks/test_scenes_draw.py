import pytest

from mllm_npu.evaluate.judge_scenes import SceneJudge
from mllm_npu.evaluate.tasks.scenes_draw import SceneDrawing
from mllm_npu.inference.options import GenerationOptions


@pytest.fixture(scope="module")
def make_task(scenes_world):
    judge = SceneJudge(picture_size=32)

    def make(split):
        return SceneDrawing(
            world=scenes_world, split=split, judge=judge, options=GenerationOptions()
        )

    return make


def test_the_rendered_picture_is_right_and_another_is_not(fakes, make_task):
    task = make_task("test")
    first, second = task.examples()[:2]
    assert task.score(first, fakes.make_reply("", [first.truth])) == 1.0
    assert task.score(first, fakes.make_reply("", [second.truth])) == 0.0
    assert task.explain(first, fakes.make_reply("", [first.truth])) == first.answer


def test_a_share_of_quarters_counts_halves(fakes, make_task):
    task = make_task("test")
    example = task.examples()[0]
    assert task.share_of_quarters(example, fakes.make_reply("", [example.truth])) == 1.0
    assert task.share_of_quarters(example, fakes.make_reply("nothing")) == 0.0
    empty = example.truth.copy()
    empty.paste((18, 18, 24), (0, 0, 32, 32))
    num_things = len(task.scenes[example.name])
    share = task.share_of_quarters(example, fakes.make_reply("", [empty]))
    assert share == (4 - num_things) / 4


def test_a_reply_without_a_picture_is_wrong(fakes, make_task):
    task = make_task("test")
    example = task.examples()[0]
    assert task.score(example, fakes.make_reply(example.answer)) == 0.0
    assert task.explain(example, fakes.make_reply("x")) == "no picture"


def test_the_splits_share_neither_scenes_nor_noise(make_task):
    test, valid = make_task("test"), make_task("valid")
    seeds = [{example.options.seed for example in task.examples()} for task in (test, valid)]
    assert not seeds[0] & seeds[1]
    scenes = [
        {tuple(thing[:3] for thing in scene) for scene in task.scenes.values()}
        for task in (test, valid)
    ]
    assert not scenes[0] & scenes[1]
