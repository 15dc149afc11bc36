"""Examples of tasks are answered and scored in order; who scores, and what is refused."""

import dataclasses

import pytest

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import DataError, RequestError, TooLongError
from mllm_npu.evaluate.answer_book import AnswerBook
from mllm_npu.evaluate.runner import Meter, run_share, run_tasks
from mllm_npu.evaluate.task import is_exact
from mllm_npu.inference.events import Likelihood


@pytest.fixture
def engine(fakes):
    def answer(conversation, options):
        said = conversation.turns[-1].parts[-1].text.removeprefix("Say ")
        if said == "long":
            raise TooLongError("it has 9 tokens")
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


def test_what_is_known_counts_as_done(fakes, engine, tmp_path):
    run_tasks([fakes.EchoTask("ab")], engine, book=AnswerBook(tmp_path, model="m"))
    seen = []
    meter = Meter(lambda done, total: seen.append((done, total)))
    book = AnswerBook(tmp_path, model="m")
    [result] = run_tasks([fakes.EchoTask("abc")], engine, meter=meter, book=book)
    assert seen == [(0, 3), (2, 3), (3, 3)]
    assert len(engine.asked) == 3
    assert [record.reply.text for record in result.records] == ["a", "b", "c"]


def test_a_task_without_examples_is_refused_before_anything_runs(fakes, engine):
    with pytest.raises(DataError, match="echo has no examples"):
        run_tasks([fakes.EchoTask("a"), fakes.EchoTask([])], engine)
    assert engine.asked == []


def test_a_drawing_task_is_refused_by_a_reader_before_anything_runs(fakes, engine):
    drawing = fakes.EchoTask("b")
    drawing.needs_drawing = True
    engine.can_draw = False
    with pytest.raises(RequestError, match="echo asks for pictures, this model does not draw"):
        run_tasks([fakes.EchoTask("a"), drawing], engine)
    assert engine.asked == []


def test_a_question_that_is_refused_is_counted_and_wrong(fakes, engine):
    task = fakes.EchoTask(["a", "long", "b"])
    looked = []
    task.look = looked.extend
    [result] = run_tasks([task], engine)
    assert [record.score for record in result.records] == [1.0, 0.0, 1.0]
    refused = result.records[1]
    assert (refused.refused, refused.understood) == ("it has 9 tokens", None)
    assert [example.answer for example, _ in looked] == ["a", "b"]


def test_a_task_is_told_of_all_replies_before_the_first_is_scored(fakes, engine):
    task, told = fakes.EchoTask("ab"), []
    task.look = lambda replies: told.append(len(replies))
    task.score = lambda example, reply: told.append("score") or 1.0
    run_tasks([task], engine)
    assert told == [2, "score", "score"]


def test_the_first_rank_alone_scores(fakes, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(Mesh, "barrier", lambda self: None)
    task = fakes.EchoTask("abc")
    for rank in (1, 0):
        book = AnswerBook(tmp_path, model="m", rank=rank)
        mesh = Mesh(rank=rank, world_size=2)
        results = run_tasks([task], engine, book=book, mesh=mesh)
        assert len(results) == (rank == 0)
    assert [record.reply.text for record in results[0].records] == ["a", "b", "c"]
    assert len(engine.asked) == 3


def test_ranks_that_do_not_share_a_folder_are_told_so(fakes, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(Mesh, "barrier", lambda self: None)
    with pytest.raises(DataError, match=r"answer to e1 of echo is missing.*all of them share"):
        run_tasks(
            [fakes.EchoTask("abc")],
            engine,
            book=AnswerBook(tmp_path, model="m"),
            mesh=Mesh(rank=0, world_size=2),
        )


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


def test_a_share_is_answered_weighed_and_scored_in_place(fakes, engine):
    def weigh(questions):
        for number, (_, texts) in enumerate(questions):
            yield (
                number,
                tuple(
                    Likelihood(text=text, logprob=-float(place), num_tokens=1, is_greedy=not place)
                    for place, text in enumerate(texts)
                ),
            )

    engine.weigh = weigh
    task = fakes.EchoTask(["a", "b"])
    written = task.examples()
    weighed = [fakes.make_example("b", 7, choices=("b", "c")), fakes.make_example("c", 8)]
    weighed[1] = dataclasses.replace(weighed[1], choices=("b", "c"))
    done = []
    result = run_share(task, [*written, *weighed], engine, done.append)
    assert [record.score for record in result.records] == [1, 1, 1, 0]
    assert sum(done) == 4
    assert run_share(task, [], engine, done.append).records == ()
