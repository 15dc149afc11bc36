from pathlib import Path

import pytest

from mllm_npu.data.worlds.digit_scans import DigitScans
from mllm_npu.data.worlds.digit_words import NUMBERS, UNSEEN_READ, read_wordings
from mllm_npu.evaluate.tasks.digits_read import DigitReading
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text


@pytest.fixture(scope="module")
def examples(digits_world: Path):
    return DigitReading(world=digits_world, options=GenerationOptions()).examples()


def test_every_held_out_scan_is_asked_about_once(examples):
    scans = DigitScans(share=0.1)
    asked = [
        part.picture.convert("L").tobytes()
        for example in examples
        for part in example.conversation.turns[0].parts
        if isinstance(part, ReadImage)
    ]
    assert sorted(asked) == sorted(scans.pixels[scan].tobytes() for scan in scans.ids["test"])


def test_answers_are_words(examples):
    assert {example.answer for example in examples} == set(NUMBERS[:10])


def test_wordings_are_not_those_of_training(examples):
    asked = {
        part.text
        for example in examples
        for part in example.conversation.turns[0].parts
        if isinstance(part, Text)
    }
    assert asked <= set(UNSEEN_READ)
    assert not asked & set(read_wordings())


def test_only_the_right_word_scores(fakes, examples, digits_world):
    task = DigitReading(world=digits_world, options=GenerationOptions())
    example = examples[0]
    assert task.score(example, fakes.make_reply(example.answer)) == 1.0
    assert task.score(example, fakes.make_reply("ten")) == 0.0
