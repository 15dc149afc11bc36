"""Every question is asked once, by one rank, past what an engine refuses."""

from dataclasses import replace

import pytest

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import DataError, RequestError, TooLongError
from mllm_npu.evaluate.answer_book import AnswerBook, question_key
from mllm_npu.evaluate.asker import Asker
from mllm_npu.evaluate.prompt import list_texts, put_question
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text


def said(conversation):
    return "".join(p.text for p in conversation.turns[-1].parts if isinstance(p, Text))


class Clerk:
    """An engine that repeats what it is asked, weighs by length, and refuses some texts at once.

    Args:
        make_reply: of the fakes.
        refuses: texts that fail a whole call before its first reply.
        breaks: texts on which a call breaks off, behind replies that were given.
        room: longest question that fits.
    """

    can_draw, max_batch = True, 4

    def __init__(self, make_reply, *, refuses=(), breaks=(), room=100):
        self.make_reply = make_reply
        self.refuses, self.breaks, self.room = set(refuses), set(breaks), room
        self.calls = []
        self.redrawn = []

    def replies(self, conversations, options):
        texts = [said(conversation) for conversation in conversations]
        self.calls.append(texts)
        for text in texts:
            if text in self.refuses:
                raise TooLongError(f"{text} is too long")
        for number, text in enumerate(texts):
            if text in self.breaks:
                raise DataError(f"{text} is broken")
            yield number, self.make_reply(text)

    def weigh(self, questions):
        self.calls.append([said(conversation) for conversation, _ in questions])
        for number, (_, texts) in enumerate(questions):
            yield (
                number,
                tuple(
                    Likelihood(text=text, logprob=-len(text), num_tokens=1, is_greedy=False)
                    for text in texts
                ),
            )

    def fits(self, conversation, room):
        if said(conversation) in self.breaks:
            raise RequestError("spells a control token")
        return len(said(conversation)) + room <= self.room

    def redraw(self, pictures, options):
        self.redrawn.append(len(pictures))
        return list(pictures)

    @property
    def asked(self):
        return [text for call in self.calls for text in call]


@pytest.fixture
def clerk(fakes):
    return lambda **changes: Clerk(fakes.make_reply, **changes)


@pytest.fixture
def make(fakes):
    """An example that asks for a text."""

    def example(text, number=0, **changes):
        put = put_question([text], frame="chat")
        return fakes.make_example(text, number, **{"conversation": put, **changes})

    return example


def make_asker(engine, book=None, mesh=None, advance=lambda _: None):
    book = AnswerBook() if book is None else book
    return Asker(engine=engine, book=book, mesh=mesh or Mesh.single(), advance=advance), book


def answers(book, examples):
    return [book.find(question_key(example)) for example in examples]


def test_an_empty_book_is_told_of_every_answer(clerk, make):
    asker, book = make_asker(clerk())
    examples = [make(text) for text in "abc"]
    asker.ask(examples)
    assert [answer.reply.text for answer in answers(book, examples)] == ["a", "b", "c"]


def test_what_is_known_is_not_asked_again(clerk, make, tmp_path):
    engine = clerk()
    examples = [make(text) for text in "abcd"]
    make_asker(engine, AnswerBook(tmp_path, model="m"))[0].ask(examples[:3])
    asker, book = make_asker(engine, AnswerBook(tmp_path, model="m"))
    asker.ask(examples)
    assert sorted(engine.asked) == ["a", "b", "c", "d"]
    assert all(answers(book, examples))


def test_the_same_question_is_asked_once(clerk, make):
    engine, seen = clerk(), []
    asker, _ = make_asker(engine, advance=seen.append)
    asker.ask([make("a"), make("a"), make("b"), make("a")])
    assert sorted(engine.asked) == ["a", "b"]
    assert sum(seen) == 4


def test_the_longest_are_written_first(clerk, make):
    engine = clerk()
    make_asker(engine)[0].ask([make("a"), make("ccc"), make("bb")])
    assert engine.calls == [["ccc", "bb", "a"]]


@pytest.mark.parametrize("kind", ["refuses", "breaks"])
@pytest.mark.parametrize("bad", [{"q3"}, {"q0"}, {"q7"}, {"q1", "q6"}])
def test_what_is_refused_costs_the_others_nothing(clerk, make, kind, bad):
    engine = clerk(**{kind: bad})
    asker, book = make_asker(engine)
    examples = [make(f"q{number}") for number in range(8)]
    asker.ask(examples)
    for example, answer in zip(examples, answers(book, examples), strict=True):
        if example.answer in bad:
            why = "too long" if kind == "refuses" else "broken"
            assert (answer.reply.text, answer.refused) == ("", f"{example.answer} is {why}")
        else:
            assert (answer.reply.text, answer.refused) == (example.answer, None)


def test_of_many_the_refused_one_is_found_by_halves(clerk, make):
    engine = clerk(refuses={"q77"})
    make_asker(engine)[0].ask([make(f"q{number}") for number in range(256)])
    assert len(engine.calls) <= 2 * 9


def test_a_book_that_cannot_be_written_ends_it_at_once(clerk, make, tmp_path):
    engine = clerk()
    asker, _ = make_asker(engine, AnswerBook(tmp_path, model="m"))
    (tmp_path / "m-0.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be kept"):
        asker.ask([make("a"), make("b")])
    assert len(engine.calls) == 1


def test_choices_are_weighed_and_pictures_redrawn(clerk, make, fakes):
    engine = clerk()
    asker, book = make_asker(engine)
    choice = make("c", choices=("long", "no", "longest"))
    redrawn = fakes.make_example("r", redraws=True)
    asker.ask([make("a"), choice, redrawn])
    found = answers(book, [choice, redrawn])
    assert found[0].reply.text == "no"
    assert [each.logprob for each in found[0].reply.choices] == [-4, -2, -7]
    assert found[1].reply.pictures[0].size == (2, 2)
    assert (engine.redrawn, engine.asked) == ([1], ["c", "a"])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranks_share_the_questions_whatever_each_of_them_knows(clerk, make, tmp_path, size):
    """Each looks at the book at another moment; still every question is asked by one of them."""
    examples = [make(f"q{number}", number) for number in range(11)]
    engines = [clerk() for _ in range(size)]
    for rank, engine in enumerate(engines):
        book = AnswerBook(tmp_path, model="m", rank=rank)  # sees what those before have written
        seen = []
        mesh = Mesh(rank=rank, world_size=size)
        make_asker(engine, book, mesh, seen.append)[0].ask(examples)
        assert sum(seen) == len(examples)
    asked = [text for engine in engines for text in engine.asked]
    assert sorted(asked) == sorted(f"q{number}" for number in range(11))
    assert max(len(engine.asked) for engine in engines) <= -(-11 // size)


def test_shots_are_left_out_from_the_last_on_until_the_question_fits(clerk, make):
    put = put_question(["QUESTION"], frame="plain", shots=("1" * 10, "2" * 10, "3" * 10), intro="I")
    options = GenerationOptions(max_new_tokens=5)
    example = make("x", conversation=put, num_shots=3, first_shot=1, options=options)
    for room, left in ((44, 3), (43, 2), (34, 2), (33, 1), (24, 1), (23, 0), (5, 0)):
        short = make_asker(clerk(room=room))[0].shorten(example)
        assert short.num_shots == left
        texts, shots = list_texts(short)
        assert texts == ["I", *["1" * 10, "2" * 10, "3" * 10][:left], "QUESTION"]
        assert len(shots) == left


def test_a_choice_needs_no_more_tokens_than_it_has_bytes(clerk, make):
    put = put_question(["Q"], frame="plain", shots=("1" * 10,))
    example = make("x", conversation=put, num_shots=1, choices=(" A", " 二"))
    assert make_asker(clerk(room=15))[0].shorten(example).num_shots == 1
    assert make_asker(clerk(room=14))[0].shorten(example).num_shots == 0


def test_a_question_that_cannot_be_asked_at_all_stays_as_it_is(clerk, make):
    put = put_question(["Q"], frame="plain", shots=("S",))
    example = make("x", conversation=put, num_shots=1)
    engine = clerk(breaks={"SQ"})
    asker, book = make_asker(engine)
    assert asker.shorten(example) is example
    asker.ask([example, make("ok")])
    assert answers(book, [example])[0].refused == "SQ is broken"
    assert answers(book, [replace(example, conversation=make("ok").conversation)])
