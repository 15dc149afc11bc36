import pytest

from mllm_npu.data.worlds.digit_words import UNSEEN_DRAW, draw_wordings, fill
from mllm_npu.evaluate.real_digits import read_scans
from mllm_npu.evaluate.tasks.digits_draw import DigitDrawing
from mllm_npu.inference.options import GenerationOptions


@pytest.fixture(scope="module")
def scans_and_judge(digits_world):
    return read_scans(digits_world)


@pytest.fixture(scope="module")
def make_task(digits_world, scans_and_judge):
    def make(split):
        _, judge = scans_and_judge
        return DigitDrawing(
            world=digits_world, split=split, judge=judge, options=GenerationOptions(guidance=1.5)
        )

    return make


def question_of(example):
    return example.conversation.turns[0].parts[0].text


def test_held_out_wordings_are_never_in_training(make_task):
    unseen = {
        fill(wording, digit, as_word=as_word)
        for wording in UNSEEN_DRAW
        for digit in range(10)
        for as_word in (True, False)
    }
    asked = {question_of(example) for example in make_task("test").examples()}
    assert asked <= unseen
    assert not set(UNSEEN_DRAW) & set(draw_wordings())


def test_validation_wordings_are_others(make_task):
    held_out = {question_of(example) for example in make_task("test").examples()}
    assert not held_out & {question_of(example) for example in make_task("valid").examples()}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_every_drawing_has_its_own_name_and_noise(make_task, split):
    examples = make_task(split).examples()
    assert len({example.name for example in examples}) == len(examples)
    assert len({example.options.seed for example in examples}) == len(examples)
    assert {example.options.guidance for example in examples} == {1.5}


def test_the_noise_of_the_splits_differs(make_task):
    test, valid = (
        {example.options.seed for example in make_task(split).examples()}
        for split in ("test", "valid")
    )
    assert not test & valid


def test_a_drawing_is_right_when_the_judge_sees_the_digit(fakes, make_task, scans_and_judge):
    scans, judge = scans_and_judge
    train = scans["train"]
    first = {
        digit: picture
        for picture, digit in zip(train.pictures, train.digits, strict=True)
        if judge.judge([picture]) == [digit]
    }
    task = make_task("test")
    for example in task.examples():
        right, other = int(example.answer), (int(example.answer) + 3) % 10
        assert task.score(example, fakes.make_reply("", [first[right]])) == 1.0
        assert task.score(example, fakes.make_reply("", [first[other]])) == 0.0
        assert task.explain(example, fakes.make_reply("", [first[other]])) == str(other)


def test_a_reply_without_a_picture_is_wrong(fakes, make_task):
    task = make_task("test")
    example = task.examples()[0]
    assert task.score(example, fakes.make_reply(example.answer)) == 0.0
    assert task.explain(example, fakes.make_reply(example.answer)) == "no picture"
