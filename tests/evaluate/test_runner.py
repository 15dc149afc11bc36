import math

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.runner import Meter, run_tasks
from mllm_npu.evaluate.statistics import standard_error
from mllm_npu.evaluate.task import is_exact


@pytest.fixture
def engine(fakes):
    def answer(conversation, options):
        said = conversation.turns[-1].parts[-1].text.removeprefix("Say ")
        return fakes.make_reply("wrong" if said == "hard" else said)

    return fakes.Oracle(answer)


def test_scores_are_added_up_in_order(fakes, engine):
    [result] = run_tasks([fakes.EchoTask(["a", "hard", "b", "c"])], engine)
    assert [record.score for record in result.records] == [1.0, 0.0, 1.0, 1.0]
    assert [record.understood for record in result.records] == ["a", "wrong", "b", "c"]
    assert result.value == 0.75


def test_every_example_has_its_own_options(fakes, engine):
    run_tasks([fakes.EchoTask(["a", "b", "c"])], engine)
    assert [options.seed for _, options in engine.asked] == [0, 1, 2]


def test_a_limit_holds_for_each_task(fakes, engine):
    results = run_tasks([fakes.EchoTask("abc"), fakes.EchoTask("de")], engine, limit=2)
    assert [len(result.records) for result in results] == [2, 2]


def test_progress_knows_the_whole_from_the_start(fakes, engine):
    seen = []
    meter = Meter(lambda done, total: seen.append((done, total)))
    run_tasks([fakes.EchoTask("ab"), fakes.EchoTask("c")], engine, meter=meter)
    assert seen[1] == (0, 3)
    assert seen[-1] == (3, 3)
    assert [done for done, _ in seen[1:]] == [0, 1, 2, 3]


def test_a_task_without_examples_is_refused_before_anything_runs(fakes, engine):
    with pytest.raises(DataError, match="echo has no examples"):
        run_tasks([fakes.EchoTask("a"), fakes.EchoTask([])], engine)
    assert engine.asked == []


def test_the_standard_error_is_that_of_a_share():
    scores = [1.0] * 90 + [0.0] * 10
    assert standard_error(scores) == pytest.approx(math.sqrt(0.9 * 0.1 / 99))
    assert standard_error([1.0] * 5) == 0.0
    assert standard_error([1.0]) == 0.0


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("seven", 1.0),
        (" seven\n", 1.0),
        ("Seven", 0.0),
        ("seven.", 0.0),
        ("it is seven", 0.0),
        ("", 0.0),
    ],
)
def test_only_the_answer_itself_is_right(fakes, said, score):
    assert is_exact(fakes.make_example("seven"), fakes.make_reply(said)) == score


def test_a_task_understands_the_text_as_it_is(fakes):
    task = fakes.EchoTask(["a"])
    assert task.explain(fakes.make_example("a"), fakes.make_reply(" a b ")) == "a b"
