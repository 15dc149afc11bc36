from mllm_npu.data.worlds.digit_words import NUMBERS
from mllm_npu.evaluate.tasks.digits_sum import DigitSums
from mllm_npu.evaluate.world_rows import meta_of, read_rows
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage


def test_two_scans_and_their_sum(digits_world):
    task = DigitSums(world=digits_world, options=GenerationOptions())
    metas = {row.key: meta_of(row) for row in read_rows(digits_world, "instruction", "test")}
    examples = task.examples()
    assert len(examples) >= 20
    for example in examples:
        meta = metas[example.name]
        assert example.answer == NUMBERS[meta["a"] + meta["b"]]
        parts = example.conversation.turns[0].parts
        assert sum(isinstance(part, ReadImage) for part in parts) == 2


def test_only_the_right_word_scores(fakes, digits_world):
    task = DigitSums(world=digits_world, options=GenerationOptions())
    example = fakes.make_example("fifteen")
    assert task.score(example, fakes.make_reply("fifteen")) == 1.0
    assert task.score(example, fakes.make_reply("15")) == 0.0
