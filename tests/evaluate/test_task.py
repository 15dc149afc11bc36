import pytest

from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask


def replying(text: str) -> Reply:
    return Reply(
        text=text,
        pictures=(),
        features=(),
        finish_reason="stop",
        num_prompt_tokens=1,
        num_new_tokens=1,
    )


def example(answer: str) -> Example:
    return Example(
        name="one", conversation=ask("What?"), answer=answer, options=GenerationOptions()
    )


class Echo(Task):
    name = "echo"
    title = "Says it back"
    citation = "none"

    def examples(self):
        return [example("seven")]

    def score(self, example, reply):
        return is_exact(example, reply)


@pytest.mark.parametrize(
    ("said", "score"),
    [("seven", 1.0), (" seven\n", 1.0), ("Seven", 0.0), ("seven!", 0.0), ("a seven", 0.0), ("", 0)],
)
def test_exact_is_the_answer_and_nothing_else(said, score):
    assert is_exact(example("seven"), replying(said)) == score


def test_blanks_at_the_ends_of_an_answer_do_not_count():
    assert is_exact(example(" seven "), replying("seven")) == 1.0


def test_blanks_inside_do_count():
    assert is_exact(example("4 7"), replying("47")) == 0.0


def test_a_task_explains_a_reply_by_its_words_unless_it_says_otherwise():
    assert Echo().explain(example("seven"), replying("  one, seven \n")) == "one, seven"


def test_a_task_must_give_examples_and_a_score():
    class Half(Task):
        def examples(self):
            return []

    with pytest.raises(TypeError, match="score"):
        Half()


def test_an_example_is_a_value():
    with pytest.raises(AttributeError):
        example("seven").answer = "eight"
    assert example("seven").truth is None
