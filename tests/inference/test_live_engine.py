"""Requests that come and go beside each other are answered as each alone."""

import random
import threading
import time

import pytest
import torch

from mllm_npu.errors import BusyError, RequestError
from mllm_npu.inference.events import Finished, ImageMade, TextDelta, collect_reply
from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import tiny_seed
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn, ask

GREEDY = GenerationOptions(max_new_tokens=20)
ENDLESS = GenerationOptions(max_new_tokens=10_000)


def make_fake(fakes, table, *, max_tokens=64, takes_condition=False, **sizes):
    model = fakes.FakeModel(table, takes_condition=takes_condition)
    processor = fakes.ByteProcessor(max_tokens)
    return LiveEngine(model=model, processor=processor, device="cpu", **sizes)


@pytest.fixture
def start(fakes):
    """Engines on the fake model; they are closed afterwards."""
    engines = []

    def make(table, **sizes):
        engines.append(make_fake(fakes, table, **sizes))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close(drain=False)


@pytest.fixture
def endless(fakes, start):
    """An engine whose replies go on for as long as there is room."""

    def make(**sizes):
        return start(fakes.spell("aba"), max_tokens=100_000, **sizes)

    return make


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_events_come_as_they_do_from_the_other_engine(fakes, start):
    table = fakes.spell("?ok", fakes.BEGIN) | fakes.chain(fakes.END, *b"su", fakes.EOS)
    events = list(start(table).submit(ask("a?"), GREEDY))
    assert [type(event) for event in events] == [
        *(TextDelta, TextDelta, ImageMade, TextDelta, TextDelta, Finished)
    ]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "oksu"
    assert (events[-1].num_new_tokens, events[-1].num_pictures) == (5, 1)


def make_mix(fakes):
    """Texts, several pictures, drawing, editing, several turns; greedy and seeded."""
    shots = [fakes.noise_picture(number, size) for number, size in enumerate([(16, 16), (48, 16)])]
    turns = (
        Turn(role="user", parts=(ReadImage(picture=shots[0]), Text(text="Read the digits."))),
        Turn(role="assistant", parts=(Text(text="seven"), DrawnImage(picture=shots[0]))),
        Turn(role="user", parts=(Text(text="Which digit is this?"),)),
    )
    talks = [
        *map(ask, fakes.QUESTIONS),
        ask("What is the sum?", shots),
        ask("What is the sum?", [shots[1], shots[1], shots[0]]),
        ask("Draw a seven.", shots[:1]),
        Conversation(turns=turns),
    ]
    wishes = [
        {"images": "forbid"},
        {"images": "forbid", "temperature": 1.2, "top_p": 0.9, "min_p": 0.02},
        {"images": "auto", "temperature": 0.8, "top_k": 20, "repetition_penalty": 1.3},
        {"images": "force"},
        {"images": "auto", "repetition_penalty": 1.2, "logprobs": 2},
    ]
    rng = random.Random(0)
    return [
        (
            talk,
            GenerationOptions(
                **wishes[(place + number) % len(wishes)],
                max_new_tokens=rng.randint(2, 14),
                seed=10 * place + number,
                image_steps=1 + (place + number) % 2,
            ),
        )
        for number in range(5)
        for place, talk in enumerate(talks)
    ]


def assert_same(left, right):
    assert (left.text, left.finish_reason) == (right.text, right.finish_reason)
    assert (left.num_prompt_tokens, left.num_new_tokens) == (
        right.num_prompt_tokens,
        right.num_new_tokens,
    )
    assert [p.token_id for p in left.logprobs] == [p.token_id for p in right.logprobs]
    assert [p.logprob for p in left.logprobs] == pytest.approx(
        [p.logprob for p in right.logprobs], abs=1e-3
    )
    assert len(left.pictures) == len(right.pictures)
    for ours, theirs in zip(left.pictures, right.pictures, strict=True):
        pairs = zip(ours.tobytes(), theirs.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) <= 1


@pytest.fixture(scope="module")
def mix(fakes, real_model, real_processor):
    """Requests, and what an engine with one slot and no memory says to each alone."""
    requests = make_mix(fakes)
    with LiveEngine(
        model=real_model, processor=real_processor, device="cpu", max_slots=1, prefix_gib=0
    ) as engine:
        alone = [collect_reply(engine.submit(*request)) for request in requests]
    assert len({reply.text for reply in alone}) > len(alone) / 3
    assert sum(len(reply.pictures) for reply in alone) > 5
    return requests, alone


SIZES = [
    {"max_slots": 8},
    {"max_slots": 3, "tokens_per_step": 16, "prefill_chunk": 7, "prefix_gib": 0},
    {"max_slots": 5, "tokens_per_step": 40, "prefill_chunk": 11, "max_pictures": 2},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_mix_that_comes_and_goes_equals_each_alone(real_model, real_processor, mix, sizes):
    requests, alone = mix
    rng = random.Random(len(sizes))
    order = rng.sample(range(len(requests)), len(requests))
    with LiveEngine(model=real_model, processor=real_processor, device="cpu", **sizes) as engine:
        tickets, quitters = {}, []
        for number in order:
            tickets[number] = engine.submit(*requests[number])
            if rng.random() < 0.3:
                quitters.append(engine.submit(*requests[rng.randrange(len(requests))]))
                threading.Timer(rng.random() * 0.1, quitters[-1].cancel).start()
            time.sleep(rng.random() * 0.01)
        for number, ticket in tickets.items():
            assert_same(collect_reply(ticket), alone[number])
        for ticket in quitters:
            list(ticket)
        stats = engine.stats()
    assert max(stats.batch_sizes) > 1
    assert stats.finished + stats.cancelled == len(requests) + len(quitters)
    assert (stats.running, stats.queued, stats.failed) == (0, 0, 0)


def test_tiles_see_all_of_themselves_however_a_prompt_is_cut(fakes, real_processor):
    torch.manual_seed(1)
    model = tiny_seed()
    model.bidirectional_images = True
    model.language_model.resize_vocabulary(len(real_processor.tokenizer))
    talk = ask("What is the sum?", [fakes.noise_picture(n, (48, 16)) for n in range(2)])
    options = GenerationOptions(images="force", max_new_tokens=3, image_steps=1)
    found = []
    for chunk, gib in ((256, 0), (3, 0), (9, 0.1), (9, 0.1)):
        sizes = {"prefill_chunk": chunk, "tokens_per_step": 64, "prefix_gib": gib}
        with LiveEngine(model=model, processor=real_processor, device="cpu", **sizes) as engine:
            found.append(collect_reply(engine.submit(talk, options)))
            found.append(collect_reply(engine.submit(talk, options)))
    for reply in found[1:]:
        assert reply.text == found[0].text
        torch.testing.assert_close(reply.features[0], found[0].features[0], atol=1e-4, rtol=1e-4)


def test_the_beginning_of_a_prompt_and_its_pictures_are_computed_once(
    fakes, real_model, real_processor
):
    picture = fakes.noise_picture(3, (48, 16))
    first, second = (ask(text, [picture]) for text in ("Read the digits.", "What is the sum?"))
    with LiveEngine(model=real_model, processor=real_processor, device="cpu") as engine:
        one = collect_reply(engine.submit(first, GREEDY))
        computed = engine.stats().prompt_tokens
        two = collect_reply(engine.submit(second, GREEDY))
        again = collect_reply(engine.submit(first, GREEDY))
        stats = engine.stats()
    assert computed == one.num_prompt_tokens
    assert stats.prefix_hits == 2
    assert stats.cached_prefixes == 2
    assert stats.reused_tokens > 4 * 2 * 4
    asked = one.num_prompt_tokens + two.num_prompt_tokens + again.num_prompt_tokens
    assert stats.prompt_tokens + stats.reused_tokens == asked
    assert (stats.cached_tiles, stats.tile_hits) == (4, 8)
    assert again.text == one.text
    with LiveEngine(
        model=real_model, processor=real_processor, device="cpu", prefix_gib=0
    ) as engine:
        assert collect_reply(engine.submit(second, GREEDY)).text == two.text
        assert engine.stats().cached_prefixes == 0


def test_nothing_grows_over_many_requests(real_model, real_processor):
    options = GenerationOptions(max_new_tokens=3, images="forbid", temperature=1.0)
    with LiveEngine(
        model=real_model, processor=real_processor, device="cpu", max_slots=4, prefix_gib=0
    ) as engine:
        collect_reply(engine.submit(ask("Draw a seven."), options))
        slots = engine._batcher._slots
        pointers = [part.data_ptr() for layer in slots._layers.values() for part in layer]
        size = slots.num_bytes
        tickets = [engine.submit(ask("Read the digits."), options) for _ in range(200)]
        for ticket in tickets:
            collect_reply(ticket)
        assert slots.num_bytes == size > 0
        after = [part.data_ptr() for layer in slots._layers.values() for part in layer]
        assert after == pointers
        assert (len(engine._desk.live), len(engine._pictures._last_of)) == (0, 0)
        assert engine.stats().free_slots == 4


class TestLeaving:
    def test_a_cancelled_request_gives_its_slot_to_the_next(self, endless):
        engine = endless(max_slots=1)
        first, second = (engine.submit(ask("a"), ENDLESS) for _ in range(2))
        next(first)
        assert (first.position, second.position) == (0, 1)
        first.cancel()
        next(second)
        assert list(first)[-1:] != [Finished]
        second.cancel()
        wait_for(lambda: engine.stats().free_slots == 1)
        assert engine.stats().cancelled == 2

    def test_a_request_that_waits_may_be_cancelled(self, endless):
        engine = endless(max_slots=1)
        first, second, third = (engine.submit(ask("a"), ENDLESS) for _ in range(3))
        next(first)
        second.cancel()
        assert list(second) == []
        wait_for(lambda: third.position == 1)

    def test_when_the_queue_is_full_no_more_is_taken(self, endless):
        engine = endless(max_slots=1, max_queue=2)
        next(engine.submit(ask("a"), ENDLESS))
        for _ in range(2):
            engine.submit(ask("a"), ENDLESS)
        with pytest.raises(BusyError, match="2 requests wait already"):
            engine.submit(ask("a"), ENDLESS)

    def test_the_time_of_a_request_ends_its_reply_or_its_waiting(self, endless):
        engine = endless(max_slots=1, max_seconds=0.2)
        running, waiting = (engine.submit(ask("a"), ENDLESS) for _ in range(2))
        waiting.begun -= 1
        with pytest.raises(BusyError, match=r"waited 0\.2 seconds"):
            next(waiting)
        reply = collect_reply(running)
        assert reply.finish_reason == "length"
        assert 0 < reply.num_new_tokens < 10_000

    def test_closing_answers_what_was_taken(self, fakes, start):
        table = fakes.spell("?w", fakes.BEGIN) | fakes.chain(fakes.END, fakes.EOS)
        engine = start(table, max_slots=2)
        tickets = [engine.submit(ask("?"), GREEDY) for _ in range(7)]
        engine.close()
        assert [len(collect_reply(ticket).pictures) for ticket in tickets] == [1] * 7
        with pytest.raises(RequestError, match="takes no more"):
            engine.submit(ask("?"), GREEDY)

    def test_closing_at_once_ends_everything(self, endless):
        engine = endless(max_slots=1)
        tickets = [engine.submit(ask("a"), ENDLESS) for _ in range(3)]
        next(tickets[0])
        engine.close(drain=False)
        for ticket in tickets:
            with pytest.raises(RequestError, match="was closed"):
                list(ticket)


class TestWhatGoesWrong:
    def test_what_cannot_be_answered_is_refused_at_once(self, start):
        with pytest.raises(RequestError, match="prompt is empty"):
            start({}).submit(ask(" "), GREEDY)

    def test_an_error_of_one_request_ends_it_alone(self, fakes, start):
        engine = start(fakes.spell("?wabc", fakes.EOS), max_slots=4)
        processor = engine._maker._processor
        decode = processor.decode_text

        def break_at_b(ids):
            if ord("b") in ids and threading.current_thread().name == "_answer":
                raise ZeroDivisionError
            return decode(ids)

        good = engine.submit(ask("?"), GenerationOptions(max_new_tokens=2))
        processor.decode_text = break_at_b
        bad = engine.submit(ask("?"), GREEDY)
        with pytest.raises(ZeroDivisionError):
            list(bad)
        assert collect_reply(good).text == "wa"
        assert (engine.stats().failed, engine.stats().error) == (1, None)
        wait_for(lambda: engine.stats().free_slots == 4)

    def test_a_picture_that_cannot_be_read_ends_its_request_alone(self, fakes, start):
        engine = start(fakes.spell("?w", fakes.EOS) | fakes.chain(ord("x"), fakes.EOS))
        encode = engine.model.encode_tiles

        def refuse_black(tiles_I3HW):
            assert (tiles_I3HW > 0).all()
            return encode(tiles_I3HW)

        engine.model.encode_tiles = refuse_black
        shots = [fakes.Image.new("RGB", (2, 2), (level,) * 3) for level in (0, ord("x"))]
        bad, good = (engine.submit(ask("", [shot]), GREEDY) for shot in shots)
        with pytest.raises(AssertionError):
            list(bad)
        assert collect_reply(good).finish_reason == "stop"

    def test_a_picture_that_cannot_be_drawn_ends_its_request_alone(self, fakes, start):
        table = fakes.spell("?w", fakes.EOS) | fakes.chain(fakes.END, *b"abc", fakes.EOS)
        engine = start(table)
        engine.model.draw = None
        bad = engine.submit(ask("?"), GenerationOptions(images="force"))
        with pytest.raises(TypeError):
            list(bad)
        assert collect_reply(engine.submit(ask("?"), GREEDY)).text == "w"
        wait_for(lambda: engine.stats().free_slots == 8)

    def test_an_unexpected_error_ends_all_and_the_engine_says_so(self, endless):
        engine = endless(max_slots=1)
        tickets = [engine.submit(ask("a"), ENDLESS) for _ in range(2)]
        next(tickets[0])
        engine._batcher._slots.advance = None
        for ticket in tickets:
            with pytest.raises(TypeError):
                list(ticket)
        assert "TypeError" in engine.stats().error
        with pytest.raises(RequestError, match="has stopped: TypeError"):
            engine.submit(ask("a"), GREEDY)


def test_text_of_others_goes_on_while_a_picture_is_drawn(fakes, start):
    table = fakes.spell("?abcdefg", fakes.EOS) | fakes.chain(fakes.END, *b"z", fakes.EOS)
    engine = start(table)
    gate, decode = threading.Event(), engine.model.draw

    def draw(*args, **kwargs):
        assert gate.wait(20)
        return decode(*args, **kwargs)

    engine.model.draw = draw
    drawing = engine.submit(ask("?"), GenerationOptions(images="force", max_new_tokens=4))
    wait_for(lambda: engine.stats().drawing == 1)
    assert collect_reply(engine.submit(ask("?"), GREEDY)).text == "abcdefg"
    gate.set()
    assert [type(event) for event in drawing] == [ImageMade, TextDelta, Finished]
    assert engine.stats().pictures == 1
    assert len(engine.stats().picture_seconds) == 1


def test_a_picture_that_changes_another_waits_for_it(fakes, start):
    table = fakes.chain(fakes.END, fakes.BEGIN) | {ord("b"): fakes.EOS}
    engine = start(table, takes_condition=True)
    shown = fakes.Image.new("RGB", (2, 2), (ord("a"),) * 3)
    options = GenerationOptions(images="force", max_new_tokens=3, guidance=1.0)
    reply = collect_reply(engine.submit(ask("b", [shown]), options))
    views = [view[0, 0, 0, 0].item() for view in engine.model.image_decoder.conditions]
    assert views == [ord("a"), *(shot.getpixel((0, 0))[0] for shot in reply.pictures[:2])]


def test_how_long_the_first_token_took_is_kept(fakes, start):
    engine = start(fakes.spell("?w", fakes.EOS))
    for _ in range(3):
        collect_reply(engine.submit(ask("?"), GREEDY))
    stats = engine.stats()
    assert len(stats.first_token_seconds) == 3
    assert all(0 < seconds < 20 for seconds in stats.first_token_seconds)
    assert (stats.finished, stats.new_tokens, stats.steps) == (3, 6, 6)
    assert engine.can_draw
