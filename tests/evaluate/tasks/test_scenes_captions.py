from mllm_npu.data.worlds.scene_words import DESCRIBE
from mllm_npu.evaluate.tasks.scenes_captions import SceneCaptions
from mllm_npu.evaluate.world_rows import read_rows
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage


def test_every_held_out_picture_is_to_be_described(scenes_world):
    examples = SceneCaptions(world=scenes_world, options=GenerationOptions()).examples()
    captions = [row.json()["caption"] for row in read_rows(scenes_world, "caption", "test")]
    assert [example.answer for example in examples] == captions
    for example in examples:
        picture, question = example.conversation.turns[0].parts
        assert isinstance(picture, ReadImage)
        assert question.text in DESCRIBE


def test_a_single_wrong_word_makes_a_caption_wrong(fakes, scenes_world):
    task = SceneCaptions(world=scenes_world, options=GenerationOptions())
    example = fakes.make_example("a red circle at the top left")
    assert task.score(example, fakes.make_reply("a red circle at the top left")) == 1.0
    assert task.score(example, fakes.make_reply("a red circle at the top right")) == 0.0
