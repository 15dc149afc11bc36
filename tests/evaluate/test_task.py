import pytest

from mllm_npu.evaluate.task import Example, Record, Task, count_unread, is_exact
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
    assert example("seven").choices == ()


def record(understood, refused=None):
    return Record(
        example=example("seven"),
        reply=replying("x"),
        understood=understood,
        score=0.25,
        refused=refused,
    )


def test_a_reply_is_unread_where_it_has_no_form_and_a_refused_question_has_none():
    assert count_unread([record("x"), record(None), record(""), record(None, "too long")]) == 1


def test_the_number_of_a_task_is_its_mean_score_unless_it_says_otherwise():
    [figure] = Echo().figures([record("x"), record(None)])
    assert (figure.name, figure.title, figure.citation) == ("echo", "Says it back", "none")
    assert (figure.value, figure.num, figure.num_unread, figure.level) == (0.25, 2, 1, 0)


def test_a_task_has_no_files_to_hand_in_and_needs_no_look_unless_it_says_otherwise():
    assert Echo().submissions([record("x")]) == {}
    assert Echo().look([(example("seven"), replying("x"))]) is None
    assert Echo().needs_drawing is False
