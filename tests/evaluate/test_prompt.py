"""Questions as text that goes on or as a turn of a chat, and solved examples that are left out."""

from dataclasses import replace

import pytest
from PIL import Image

from mllm_npu.evaluate.prompt import drop_shot, list_texts, put_question
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn, ask

PICTURE = Image.new("RGB", (2, 2))


def texts(conversation):
    parts = conversation.turns[-1].parts
    return [part.text for part in parts if isinstance(part, Text)]


@pytest.mark.parametrize(("frame", "role"), [("plain", "document"), ("chat", "user")])
def test_a_question_is_one_turn_of_its_frame(frame, role):
    put = put_question(["Which?", PICTURE, "A or B"], frame=frame, shots=("1", "2"), intro="Hello.")
    [turn] = put.turns
    assert (turn.role, turn.learn) == (role, False)
    assert turn.parts == (
        *(Text(text="Hello."), Text(text="1"), Text(text="2")),
        *(Text(text="Which?"), ReadImage(picture=PICTURE), Text(text="A or B")),
    )


def test_empty_texts_are_no_parts():
    put = put_question(["", PICTURE, ""], frame="chat", shots=("", "s"))
    assert put.turns[0].parts == (Text(text="s"), ReadImage(picture=PICTURE))


def test_a_shot_is_left_out_at_its_place_and_nothing_else_changes():
    put = put_question([PICTURE, "q"], frame="plain", shots=("1", "2", "3"), intro="i")
    before = Turn(role="system", parts=(Text(text="be kind"),))
    whole = Conversation(turns=(before, *put.turns), key="k")
    short = drop_shot(whole, 3)
    assert texts(short) == ["i", "1", "2", "q"]
    assert short.turns[0] == before
    assert short.turns[1].role == "document"
    assert texts(drop_shot(short, 2)) == ["i", "1", "q"]


def test_texts_are_told_apart_from_solved_examples(fakes):
    put = put_question([PICTURE, "q", "c"], frame="plain", shots=("1", "2"), intro="i")
    example = fakes.make_example("a", conversation=put, num_shots=2, first_shot=1)
    assert list_texts(example) == (["i", "1", "2", "q", "c"], [1, 2])
    short = replace(example, conversation=drop_shot(put, 2), num_shots=1)
    assert list_texts(short) == (["i", "1", "q", "c"], [1])


def test_solved_examples_are_those_of_the_last_turn(fakes):
    asked = ask("now").turns
    conversation = Conversation(turns=(*ask("before").turns, *asked))
    example = fakes.make_example("a", conversation=conversation, num_shots=1, first_shot=0)
    assert list_texts(example) == (["before", "now"], [1])
    assert list_texts(fakes.make_example("a")) == (["Say a"], [])
