from mllm_npu.evaluate.tasks.scenes_questions import SceneQuestions
from mllm_npu.evaluate.world_rows import meta_of, read_rows
from mllm_npu.inference.options import GenerationOptions


def test_all_kinds_but_the_caption_are_asked(scenes_world):
    task = SceneQuestions(world=scenes_world, options=GenerationOptions())
    metas = {row.key: meta_of(row) for row in read_rows(scenes_world, "question", "test")}
    examples = task.examples()
    assert {metas[example.name]["kind"] for example in examples} == {
        *("color", "shape", "count", "exists", "thing")
    }
    assert all(example.answer == metas[example.name]["answer"] for example in examples)
    assert all(" " not in example.answer for example in examples)


def test_only_the_right_word_scores(fakes, scenes_world):
    task = SceneQuestions(world=scenes_world, options=GenerationOptions())
    example = fakes.make_example("red")
    assert task.score(example, fakes.make_reply("red")) == 1.0
    assert task.score(example, fakes.make_reply("red circle")) == 0.0
