"""Steps of a batch of requests on the fake model."""

import pytest
import torch

from mllm_npu.inference.batcher import Batcher
from mllm_npu.inference.events import Finished, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_queue import PictureQueue
from mllm_npu.inference.prefix_cache import PrefixCache, mark_tokens
from mllm_npu.inference.prompts import embed_prompts
from mllm_npu.inference.row_maker import RowMaker
from mllm_npu.processing.conversation import ask

CPU = torch.device("cpu")


@pytest.fixture
def make(fakes):
    """A batcher on a table, and a function that adds a question to it."""

    def build(table, *, num_slots=4, tokens_per_step=64, prefill_chunk=64, prefixes=None):
        model = fakes.FakeModel(table)
        maker = RowMaker(model=model, processor=fakes.ByteProcessor(), device=CPU)
        pictures = PictureQueue(maker.artist, max_batch=4)
        batcher = Batcher(
            model=model,
            artist=maker.artist,
            tokens=maker.tokens,
            slots=model.language_model.new_slots(num_slots, 64),
            pictures=pictures,
            tokens_per_step=tokens_per_step,
            prefill_chunk=prefill_chunk,
            prefixes=prefixes,
        )

        def add(text, **options):
            wish = GenerationOptions(**{"max_new_tokens": 9} | options)
            row, sample = maker.make(len(model.language_model.fed), ask(text), wish)
            row.marks = mark_tokens(sample, ())
            [row.prompt_LD] = embed_prompts(model, [sample], CPU, 8)
            batcher.add(row)
            return row

        return batcher, add, model, pictures

    return build


def texts(said):
    return {
        row: "".join(event.text for event in events if isinstance(event, TextDelta))
        for row, events in said
    }


def test_who_joins_later_is_fed_beside_those_who_write(fakes, make):
    batcher, add, model, _ = make(fakes.spell("?abcdef", fakes.EOS))
    first = add("x?")
    assert texts(batcher.step()) == {first: "a"}
    second = add("yy?")
    assert texts(batcher.step()) == {first: "b", second: "a"}
    assert texts(batcher.step()) == {first: "c", second: "b"}
    assert model.language_model.fed == [(1, 2), (2, 3), (2, 1)]
    assert (batcher.num_read, batcher.num_chosen, batcher.num_free) == (5, 5, 2)


def test_the_last_request_moves_into_a_slot_that_becomes_free(fakes, make):
    batcher, add, _, _ = make(fakes.spell("?abc", fakes.EOS))
    rows = [add("?", max_new_tokens=number) for number in (2, 9, 9)]
    batcher.step()
    said = batcher.step()
    assert isinstance(said[0][1][-1], Finished)
    assert batcher.rows == [rows[2], rows[1]]
    assert texts(batcher.step()) == {rows[1]: "c", rows[2]: "c"}
    batcher.remove({rows[2]})
    assert batcher.rows == [rows[1]]
    assert isinstance(batcher.step()[0][1][-1], Finished)
    assert batcher.rows == []


def test_a_long_prompt_is_read_in_pieces_and_says_nothing_before_its_end(fakes, make):
    batcher, add, model, _ = make(fakes.spell("?ab", fakes.EOS), prefill_chunk=4)
    long, short = add("0123456789?"), add("?")
    assert [texts(batcher.step()) for _ in range(3)] == [
        {short: "a"},
        {short: "b"},
        {short: "", long: "a"},
    ]
    assert model.language_model.fed == [(2, 4), (2, 4), (2, 3)]


def test_pictures_of_a_step_are_asked_for_together_and_text_goes_on(fakes, make):
    table = fakes.spell("?", fakes.BEGIN) | fakes.chain(fakes.END, *b"x", fakes.EOS)
    batcher, add, _, pictures = make(table)
    rows = [add("?") for _ in range(2)]
    batcher.step()
    batcher.step()
    assert len(pictures) == 2
    batcher.step()
    assert batcher.rows == []
    batch = pictures.take()
    pictures.draw(batch)
    for job, row in zip(batch, rows, strict=True):
        events = row.order.fill_gap(job.number, job.made)
        assert [type(event).__name__ for event in events] == ["ImageMade", "TextDelta", "Finished"]


def test_a_prompt_that_is_known_is_not_fed_again(fakes, make):
    prefixes = PrefixCache(max_bytes=2**20, least=2)
    batcher, add, model, _ = make(fakes.spell("?ab", fakes.EOS), prefixes=prefixes)
    add("system: one?")
    while batcher.rows:
        batcher.step()
    row = add("system: two?")
    assert row.fed == len("system: ")
    assert texts(batcher.step()) == {row: "a"}
    assert model.language_model.fed[-1] == (1, 4)
    assert batcher.num_read == 12 + 4


def test_an_error_of_one_request_ends_it_alone(fakes, make):
    batcher, add, _, _ = make(fakes.spell("?ab", fakes.EOS))
    bad, good = add("?"), add("?")
    bad.stop_ids = None
    said = dict(batcher.step())
    assert isinstance(bad.error, TypeError)
    assert texts([(good, said[good])]) == {good: "a"}
    assert batcher.rows == [good]
