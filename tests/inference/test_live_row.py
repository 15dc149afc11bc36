import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import Finished, TextDelta
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.sampling import Chosen

BLOCK = (256, 262, 263, 257)
EOS = 261


def take(row, token_id):
    return row.take(Chosen(token_id=token_id))


def make_row(*, room=50, seed=3, **options):
    return LiveRow(
        number=0,
        options=GenerationOptions(**options),
        prompt_LD=torch.zeros(5, 2),
        room=room,
        seed=seed,
        decode=lambda ids: bytes(ids).decode("utf-8", errors="replace"),
        image_block=BLOCK,
        stop_ids=frozenset({EOS}),
    )


def test_text_then_the_end():
    row = make_row()
    assert take(row, ord("a")) == [TextDelta(text="a")]
    end = Finished(reason="stop", num_prompt_tokens=5, num_new_tokens=1, num_pictures=0)
    assert take(row, EOS) == [end]
    assert row.finished


def test_the_limit_of_tokens_ends_a_reply_and_lets_out_what_was_held_back():
    row = make_row(max_new_tokens=2)
    first, second = "é".encode()
    assert take(row, ord("a")) == [TextDelta(text="a")]
    said, end = take(row, first)
    assert said == TextDelta(text="\N{REPLACEMENT CHARACTER}")
    assert (end.reason, end.num_new_tokens) == ("length", 2)
    assert second  # the second byte is never asked for


def test_no_room_ends_a_reply():
    row = make_row(room=1)
    assert take(row, ord("a"))[-1].reason == "length"


def test_a_picture_counts_as_one_token_and_breaks_the_text():
    row = make_row(max_new_tokens=2)
    take(row, "é".encode()[0])
    assert take(row, BLOCK[0]) == [TextDelta(text="\N{REPLACEMENT CHARACTER}")]
    assert row.draws
    assert row.ids[-4:] == list(BLOCK)
    row.end_picture()
    [end] = row.finish_if_full()
    assert (end.reason, end.num_new_tokens, end.num_pictures) == ("length", 2, 1)


@pytest.mark.parametrize(
    ("room", "images", "may"), [(4, "auto", 1), (3, "auto", 0), (9, "forbid", 0)]
)
def test_a_picture_may_begin_where_it_is_allowed_and_fits(room, images, may):
    assert make_row(room=room, images=images).may_draw == bool(may)


@pytest.mark.parametrize(("room", "images"), [(0, "auto"), (3, "force")])
def test_a_question_that_leaves_no_room_is_refused(room, images):
    with pytest.raises(RequestError, match=rf"has 5 tokens.*at most {5 + room} fit in all"):
        make_row(room=room, images=images).check_room()


def test_every_picture_has_its_own_noise_and_it_follows_from_the_seed():
    def noises(seed):
        row = make_row(seed=seed)
        first = torch.rand(3, generator=row.picture_generator())
        take(row, BLOCK[0])
        row.end_picture()
        return first, torch.rand(3, generator=row.picture_generator())

    first, second = noises(3)
    assert not torch.equal(first, second)
    assert torch.equal(noises(3)[1], second)
    assert not torch.equal(noises(4)[0], first)


def test_boxes_are_read_at_the_end():
    row = make_row(max_new_tokens=2)
    row.read_boxes = lambda ids: tuple(ids)
    take(row, ord("a"))
    assert take(row, ord("b"))[-1].boxes == (ord("a"), ord("b"))


def test_a_stop_text_ends_a_reply_and_is_not_said():
    row = make_row(stop=("cd",))
    said = [event for letter in b"abc" for event in take(row, letter)]
    assert said == [TextDelta(text="a"), TextDelta(text="b")]
    [end] = take(row, ord("d"))
    assert (end.reason, end.num_new_tokens, row.finished) == ("stop", 4, True)


def test_what_a_token_was_is_told_with_its_text():
    row = make_row(logprobs=1)
    [said] = row.take(Chosen(token_id=ord("a"), logprob=-0.5, top=((ord("b"), -0.1),)))
    [told] = said.logprobs
    assert (told.token_id, told.text, told.logprob) == (ord("a"), "a", -0.5)
    assert [(one.text, one.logprob) for one in told.top] == [("b", -0.1)]


def test_tokens_that_the_model_has_not_taken_are_pending():
    row = make_row()
    assert (row.num_prompt, row.num_pending) == (5, 5)
    row.fed = 5
    take(row, ord("a"))
    assert row.num_pending == 1
    take(row, BLOCK[0])
    assert (row.num_tokens, row.whole_blocks) == (10, ((6, 10),))
    row.end_picture()
    assert row.whole_blocks == ()


def test_a_history_has_prompt_and_reply():
    row = make_row()
    row.prompt_ids = (7, 8)
    take(row, ord("a"))
    assert row.history == [7, 8, ord("a")]
