from mllm_npu.evaluate.tasks.digits_strips import DigitStrips
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage


def test_strips_are_wide_and_answers_are_their_digits(digits_world):
    examples = DigitStrips(world=digits_world, options=GenerationOptions()).examples()
    lengths = set()
    for example in examples:
        digits = example.answer.split()
        assert all(digit in "0123456789" for digit in digits)
        [picture] = [
            part.picture
            for part in example.conversation.turns[0].parts
            if isinstance(part, ReadImage)
        ]
        assert picture.width >= 16 * len(digits)
        lengths.add(len(digits))
    assert lengths == {2, 3, 4, 5, 6}


def test_one_wrong_digit_makes_a_strip_wrong(fakes, digits_world):
    task = DigitStrips(world=digits_world, options=GenerationOptions())
    example = fakes.make_example("4 0 7")
    assert task.score(example, fakes.make_reply("4 0 7")) == 1.0
    assert task.score(example, fakes.make_reply("4 0 1")) == 0.0
    assert task.score(example, fakes.make_reply("4 0")) == 0.0
