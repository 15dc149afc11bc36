"""The way of a request, on a model whose replies can be worked out by hand."""

from types import SimpleNamespace

import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.engine import Engine, GenerationOptions
from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn, ask

GREEDY = GenerationOptions(max_new_tokens=20)


def make_engine(fakes, table, *, draws=True, max_tokens=64, **sizes):
    model = fakes.FakeModel(table, draws=draws)
    return Engine(model=model, processor=fakes.ByteProcessor(max_tokens), device="cpu", **sizes)


def grey(letter):
    return Image.new("RGB", (2, 2), (ord(letter),) * 3)


def test_text_comes_piece_by_piece_and_ends(fakes):
    engine = make_engine(fakes, fakes.spell("?数b", fakes.EOS))
    events = list(engine.stream(ask("a?"), GREEDY))
    assert events[:-1] == [TextDelta(text="数"), TextDelta(text="b")]
    assert events[-1] == Finished(
        reason="stop", num_prompt_tokens=2, num_new_tokens=4, num_pictures=0
    )


def test_a_reply_that_does_not_end_is_cut(fakes):
    reply = make_engine(fakes, fakes.spell("aba")).reply(
        ask("a"), GenerationOptions(max_new_tokens=5)
    )
    assert (reply.text, reply.finish_reason, reply.num_new_tokens) == ("babab", "length", 5)


def test_a_reply_ends_where_the_processor_has_no_more_room(fakes):
    reply = make_engine(fakes, fakes.spell("aba"), max_tokens=4).reply(ask("a"), GREEDY)
    assert (reply.text, reply.finish_reason) == ("bab", "length")


def test_a_picture_is_read_where_it_stands(fakes):
    engine = make_engine(fakes, fakes.spell("xyz", fakes.EOS))
    conversation = ask("", [grey("x")])
    assert engine.reply(conversation, GREEDY).text == "yz"


def test_text_picture_text_in_one_reply(fakes):
    table = fakes.spell("?ok", fakes.BEGIN) | fakes.chain(fakes.END, *b"su", fakes.EOS)
    engine = make_engine(fakes, table)
    events = list(engine.stream(ask("a?"), GREEDY))
    assert [type(event) for event in events] == [
        *(TextDelta, TextDelta, ImageMade, TextDelta, TextDelta, Finished)
    ]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "oksu"
    assert events[2].features.shape == (fakes.NUM_SLOTS, 8)
    assert (events[-1].num_new_tokens, events[-1].num_pictures) == (5, 1)


def test_all_slots_are_one_forward_pass(fakes):
    table = fakes.chain(ord("?"), fakes.BEGIN) | fakes.chain(fakes.END, fakes.EOS)
    engine = make_engine(fakes, table)
    engine.reply(ask("a?"), GREEDY)
    assert engine.model.language_model.fed == [(1, 2), (1, fakes.NUM_SLOTS + 2)]


def test_a_forced_picture_comes_first(fakes):
    table = fakes.spell("?no", fakes.EOS) | fakes.chain(fakes.END, fakes.EOS)
    engine = make_engine(fakes, table)
    reply = engine.reply(ask("a?"), GenerationOptions(images="force"))
    assert (reply.text, len(reply.pictures), reply.finish_reason) == ("", 1, "stop")
    assert engine.model.language_model.fed == [(1, 2 + fakes.NUM_SLOTS + 2)]


def test_forbidden_pictures_are_never_begun_even_if_every_score_is_negative(fakes):
    engine = make_engine(fakes, fakes.chain(ord("?"), fakes.BEGIN))
    reply = engine.reply(ask("a?"), GenerationOptions(images="forbid", max_new_tokens=3))
    assert (len(reply.pictures), reply.num_new_tokens) == (0, 3)


def test_steps_and_guidance_reach_the_image_decoder(fakes):
    engine = make_engine(fakes, fakes.chain(fakes.END, fakes.EOS))
    options = GenerationOptions(images="force", image_steps=7, guidance=1.5)
    engine.reply(ask("a"), options)
    assert engine.model.image_decoder.batches == [(1, 7, 1.5)]


@pytest.fixture
def mixed(fakes):
    """Questions whose replies write, draw at once, draw late, or do both."""
    table = (
        fakes.spell("wabcd", fakes.EOS)
        | fakes.chain(ord("d"), fakes.EOS)
        | fakes.chain(ord("D"), fakes.BEGIN)
        | fakes.chain(ord("L"), ord("l"), fakes.BEGIN)
        | fakes.chain(fakes.END, ord("E"), fakes.EOS)
    )
    questions = ["?w", "?D", "?L", "??L", "?D", "wL", "??w", "?b"] * 3
    return table, [ask(question) for question in questions]


def same(left, right):
    assert (left.text, left.finish_reason) == (right.text, right.finish_reason)
    assert left.num_new_tokens == right.num_new_tokens
    assert [list(p.get_flattened_data()) for p in left.pictures] == [
        list(p.get_flattened_data()) for p in right.pictures
    ]


@pytest.mark.parametrize("sizes", [{}, {"max_batch": 3}, {"max_batch": 5, "window": 7}])
def test_many_together_equal_each_alone(fakes, mixed, sizes):
    table, conversations = mixed
    options = [
        GenerationOptions(seed=number, guidance=1.0 + number % 2, temperature=number % 3)
        for number in range(len(conversations))
    ]
    together = make_engine(fakes, table, **sizes).reply_many(conversations, options)
    alone = make_engine(fakes, table)
    for conversation, wish, reply in zip(conversations, options, together, strict=True):
        same(alone.reply(conversation, wish), reply)
    assert len({r.pictures[0].getpixel((0, 0)) for r in together if r.pictures}) > 3


def test_many_need_few_forward_passes(fakes, mixed):
    table, _ = mixed
    engine = make_engine(fakes, table)
    engine.reply_many([ask("?w")] * 40, GREEDY)
    assert engine.model.language_model.fed == [(40, 2), *[(40, 1)] * 4]


def test_pictures_of_many_requests_are_one_batch(fakes, mixed):
    table, _ = mixed
    engine = make_engine(fakes, table)
    engine.reply_many([ask("?D"), ask("?w"), ask("?D")], GREEDY)
    assert engine.model.image_decoder.batches == [(2, GREEDY.image_steps, GREEDY.guidance)]


def test_tiles_of_many_requests_are_encoded_together(fakes):
    engine = make_engine(fakes, fakes.chain(ord("x"), fakes.EOS), max_batch=4)
    engine.reply_many([ask("", [grey("x")])] * 6, GREEDY)
    assert engine.model.tiles_seen == [4, 2]


def test_progress_counts_every_reply_once(fakes, mixed):
    table, conversations = mixed
    seen = []
    make_engine(fakes, table, window=5).reply_many(conversations, GREEDY, seen.append)
    assert sum(seen) == len(conversations)


def test_no_questions_no_replies(fakes):
    assert make_engine(fakes, {}).reply_many([], GREEDY) == []


def test_redrawing_goes_past_the_language_model(fakes):
    engine = make_engine(fakes, {}, max_batch=2)
    pictures = [grey(chr(number)) for number in (0, 60, 100)]
    redrawn = engine.redraw(pictures, GenerationOptions(guidance=1.0))
    levels = [picture.getpixel((0, 0))[0] for picture in redrawn]
    assert levels[1] - levels[0] == 60
    assert levels[2] - levels[0] == 100
    assert engine.model.language_model.fed == []


def test_an_editing_decoder_sees_the_last_picture_and_then_its_own(fakes):
    """Two pictures are drawn in a reply: the first changes what was shown, the second the first."""
    model = fakes.FakeModel({}, takes_condition=True)
    model.language_model.table_CC.data[fakes.END, fakes.BEGIN] = 9.0
    engine = Engine(model=model, processor=fakes.ByteProcessor(), device="cpu")
    shown = Conversation(
        turns=(Turn(role="user", parts=(ReadImage(picture=grey("a")), Text(text="b"))),)
    )
    options = GenerationOptions(images="force", max_new_tokens=2, guidance=1.0)
    reply = engine.reply(shown, options)
    first, second = (view[0, 0, 0, 0].item() for view in model.image_decoder.conditions)
    assert first == ord("a")
    assert second == reply.pictures[0].getpixel((0, 0))[0]


class TestWhatCannotBeAnswered:
    @pytest.mark.parametrize(
        "conversation",
        [
            ask(""),
            ask("  \n"),
            Conversation(turns=()),
            Conversation(turns=(Turn(role="user", parts=()),)),
        ],
    )
    def test_an_empty_prompt(self, fakes, conversation):
        with pytest.raises(RequestError, match="prompt is empty"):
            make_engine(fakes, {}).reply(conversation, GREEDY)

    def test_a_picture_of_a_model_that_cannot_draw(self, fakes):
        engine = make_engine(fakes, {}, draws=False)
        with pytest.raises(RequestError, match="no image decoder"):
            engine.stream(ask("a"), GenerationOptions(images="force"))
        with pytest.raises(RequestError, match="no image decoder"):
            engine.redraw([grey("a")], GREEDY)

    def test_a_question_without_room_for_the_reply(self, fakes):
        with pytest.raises(RequestError, match="has 3 tokens"):
            make_engine(fakes, {}, max_tokens=3).reply(ask("abc"), GREEDY)


def test_a_model_that_cannot_draw_never_begins_a_picture(fakes):
    table = fakes.chain(ord("?"), fakes.BEGIN)
    reply = make_engine(fakes, table, draws=False).reply(
        ask("?"), GenerationOptions(max_new_tokens=2)
    )
    assert reply.pictures == ()


def test_a_special_token_that_closes_a_turn_ends_a_reply_too(fakes):
    closing = fakes.NUM_KNOWN - 1
    processor = fakes.ByteProcessor()
    frames = (("", ""), ("", ""), ("", "<close>"), ("", ""))
    processor.chat_template = SimpleNamespace(close_with_eos=False, frames=frames)
    processor.tokenizer = fakes.ClosingTokenizer(closing)
    model = fakes.FakeModel(fakes.chain(ord("?"), ord("x"), closing))
    banned = processor.image_ids.slots.index(closing)
    processor.image_ids = SimpleNamespace(**vars(processor.image_ids))
    processor.image_ids.slots = processor.image_ids.slots[:banned]
    reply = Engine(model=model, processor=processor, device="cpu").reply(ask("?"), GREEDY)
    assert (reply.text, reply.finish_reason) == ("x", "stop")
