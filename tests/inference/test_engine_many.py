"""Many questions to one engine: replies as they come, texts that are weighed, what has room."""

from dataclasses import replace

import pytest
from PIL import Image

from mllm_npu.errors import RequestError, TooLongError
from mllm_npu.inference.engine import Engine, GenerationOptions
from mllm_npu.processing.conversation import Conversation, Text, Turn, ask

SHOTS = "Draw a seven. What is the sum? Read the digits. Which digit is this? " * 2
FEW = GenerationOptions(max_new_tokens=6, images="forbid")


@pytest.fixture
def engine(real_model, real_processor):
    def make(**sizes):
        return Engine(model=real_model, processor=real_processor, device="cpu", **sizes)

    return make


def document(text):
    return Conversation(turns=(Turn(role="document", parts=(Text(text=text),)),))


@pytest.fixture
def questions(fakes):
    """Two families, a picture, and questions alone, each with texts of several lengths."""
    picture = fakes.noise_picture(1)
    return [
        *((document(f"{SHOTS}{word}:"), (" a", " b", " the sum")) for word in ("x", "sum", "is")),
        (ask("Which digit is this?", [picture]), ("seven", "sum")),
        *((document(f"a{SHOTS}{word}:"), ("c", "d")) for word in ("Read", "Draw")),
        (ask("Read"), ("the digits", "a", "a")),
    ]


def test_a_reply_comes_with_the_number_of_its_question_once_it_is_there(fakes):
    table = fakes.spell("?yes", fakes.EOS) | fakes.spell("!n", fakes.EOS)
    model = fakes.FakeModel(table)
    engine = Engine(model=model, processor=fakes.ByteProcessor(), device="cpu")
    asked = [ask("long?"), ask("short!"), ask("?")]
    seen = list(engine.replies(asked, GenerationOptions(max_new_tokens=9)))
    assert seen[0][0] == 1
    assert {number: reply.text for number, reply in seen} == {0: "yes", 1: "n", 2: "yes"}


@pytest.mark.parametrize("sizes", [{"max_batch": 2}, {"max_batch": 3, "window": 4}, {}])
def test_replies_are_those_of_each_alone(engine, questions, sizes):
    asked = [conversation for conversation, _ in questions]
    options = [replace(FEW, max_new_tokens=2 + n) for n in range(len(asked))]
    alone = engine()
    found = dict(engine(**sizes).replies(asked, options))
    assert sorted(found) == list(range(len(asked)))
    for number, reply in found.items():
        assert reply.text == alone.reply(asked[number], options[number]).text


def test_options_are_one_each(engine):
    with pytest.raises(ValueError, match="shorter"):
        list(engine().replies([ask("a"), ask("b")], [FEW]))
    assert list(engine().replies([], FEW)) == []


@pytest.mark.parametrize("sizes", [{"max_batch": 2}, {"max_batch": 3, "window": 3}, {}])
def test_texts_weigh_what_they_weigh_alone(engine, questions, sizes):
    alone = engine()
    found = dict(engine(**sizes).weigh(questions))
    assert sorted(found) == list(range(len(questions)))
    for number, question in enumerate(questions):
        [(_, expected)] = alone.weigh([question])
        assert [each.text for each in found[number]] == list(question[1])
        for ours, theirs in zip(found[number], expected, strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=2e-5)
            assert (ours.num_tokens, ours.is_greedy) == (theirs.num_tokens, theirs.is_greedy)


def test_numbers_go_on_behind_the_first_window(engine):
    asked = [(ask(word), ("a", "b")) for word in ("Draw", "Read", "What", "is", "sum")]
    assert [number for number, _ in engine(window=2).weigh(asked)] == [0, 1, 2, 3, 4]


def test_the_same_text_twice_weighs_the_same(engine):
    [(_, (first, second))] = engine().weigh([(ask("Read"), ("the sum", "the sum"))])
    assert first.logprob == second.logprob < 0


def test_one_question_that_cannot_be_asked_stops_its_window_before_anything_runs(engine):
    asked = [(ask("a"), ("b",)), (document(SHOTS * 40), ("b",)), (ask("c"), ("d",))]
    with pytest.raises(TooLongError):
        list(engine().weigh(asked))
    with pytest.raises(TooLongError):
        list(engine().replies([conversation for conversation, _ in asked], FEW))


def test_what_has_room_can_be_answered_and_what_has_none_cannot(engine, real_processor):
    model = engine()
    length = len(real_processor.lay_out(ask("Which digit is this?"), reply=True).ids)
    most = real_processor.max_tokens
    question = ask("Which digit is this?")
    assert model.fits(question, most - length)
    assert not model.fits(question, most - length + 1)
    assert not model.fits(document(SHOTS * 40), 0)


def test_pictures_take_room(engine, fakes):
    model, wide = engine(), fakes.noise_picture(1, (48, 16))
    assert model.fits(ask("Read", [wide] * 2), 8)
    assert not model.fits(ask("Read", [wide] * 9), 8)


def test_a_question_that_cannot_be_asked_at_all_is_no_matter_of_room(engine):
    with pytest.raises(RequestError, match="control token"):
        engine().fits(ask("a <img> b"), 1)
    with pytest.raises(RequestError):
        engine().fits(Conversation(turns=()), 1)


def test_redrawing_is_for_models_that_draw(fakes):
    reader = Engine(
        model=fakes.FakeModel({}, draws=False), processor=fakes.ByteProcessor(), device="cpu"
    )
    assert not reader.can_draw
    with pytest.raises(RequestError, match="no image decoder"):
        reader.redraw([Image.new("RGB", (2, 2))], FEW)
