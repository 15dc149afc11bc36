import pytest

from mllm_npu.evaluate.judge_scenes import SceneJudge
from mllm_npu.evaluate.tasks.scenes_edit import SceneEdits
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text


@pytest.fixture(scope="module")
def task(scenes_world):
    judge = SceneJudge(picture_size=32)
    return SceneEdits(world=scenes_world, judge=judge, options=GenerationOptions())


def test_a_picture_and_an_instruction_are_given(task):
    for example in task.examples():
        picture, instruction = example.conversation.turns[0].parts
        assert isinstance(picture, ReadImage)
        assert isinstance(instruction, Text)
        assert example.truth.tobytes() != picture.picture.tobytes()


def test_the_edited_picture_is_right_and_the_unchanged_one_is_not(fakes, task):
    for example in task.examples():
        before = example.conversation.turns[0].parts[0].picture
        assert task.score(example, fakes.make_reply("", [example.truth])) == 1.0
        assert task.score(example, fakes.make_reply("", [before])) == 0.0


def test_a_reply_without_a_picture_is_wrong(fakes, task):
    example = task.examples()[0]
    assert task.score(example, fakes.make_reply("done")) == 0.0
    assert task.explain(example, fakes.make_reply("done")) == "no picture"
    assert task.explain(example, fakes.make_reply("", [example.truth])) == example.answer
