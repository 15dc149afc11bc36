"""Frames stand around turns, answers end, and a reply is left open."""

import pytest
from PIL import Image

from mllm_npu.errors import ConfigError
from mllm_npu.processing.chat_template import INSTRUCT, RAW, ChatTemplate, End, Frame, Said
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn

CHATML = ChatTemplate(
    system="Be kind.",
    system_prefix="<|im_start|>system\n",
    system_suffix="<|im_end|>\n",
    user_prefix="<|im_start|>user\n",
    user_suffix="<|im_end|>\n",
    assistant_prefix="<|im_start|>assistant\n",
    assistant_suffix="<|im_end|>\n",
    close_with_eos=False,
)


def turn(role, text, learn=False):
    return Turn(role=role, parts=(Text(text=text),), learn=learn)


def talk(*turns):
    return Conversation(turns=turns)


def spell(template, conversation, *, reply=False):
    """The pieces as one string; what is learnt stands in braces, the end is a dot."""
    spelt = []
    for piece in template.render(conversation, reply=reply):
        match piece:
            case Frame(text=text, learn=learn):
                pass
            case Said(part=Text(text=text), learn=learn):
                pass
            case End(learn=learn):
                text = "."
        spelt.append(f"{{{text}}}" if learn else text)
    return "".join(spelt)


def test_instructions_of_several_turns():
    conversation = talk(
        turn("user", "a"),
        turn("assistant", "b", learn=True),
        turn("user", "c"),
        turn("assistant", "d", learn=True),
    )
    spelt = spell(INSTRUCT, conversation)
    assert spelt == "[INST] a [/INST]\n{b}{.}[INST] c [/INST]\n{d}{.}"


def test_an_answer_that_is_not_learnt_has_no_learnt_end():
    conversation = talk(turn("user", "a"), turn("assistant", "b"))
    assert spell(INSTRUCT, conversation) == "[INST] a [/INST]\nb."


def test_a_suffix_may_end_an_answer():
    conversation = talk(turn("user", "a"), turn("assistant", "b", learn=True))
    assert spell(CHATML, conversation) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\n{b}{<|im_end|>\n}"
    )


def test_a_systems_own_turn_replaces_the_default():
    conversation = talk(turn("system", "Be rude."), turn("user", "a"))
    spelt = spell(CHATML, conversation, reply=True)
    assert "Be rude." in spelt
    assert "Be kind." not in spelt
    assert spelt.endswith("<|im_start|>assistant\n")


def test_a_reply_opens_the_assistants_frame_and_nothing_ends():
    assert spell(INSTRUCT, talk(turn("user", "a")), reply=True) == "[INST] a [/INST]\n"
    template = ChatTemplate(user_prefix="U:", user_suffix="\n", assistant_prefix="A:")
    assert spell(template, talk(turn("user", "a")), reply=True) == "U:a\nA:"


def test_the_way_to_a_reply_is_the_way_of_training():
    question, answer = turn("user", "a"), turn("assistant", "b", learn=True)
    for template in (INSTRUCT, CHATML, RAW):
        asked = spell(template, talk(question), reply=True)
        assert spell(template, talk(question, answer)).startswith(asked + "{b}")


def test_a_begun_answer_is_continued():
    conversation = talk(turn("user", "a"), turn("assistant", "It is"))
    spelt = spell(CHATML, conversation, reply=True)
    assert spelt.endswith("<|im_start|>assistant\nIt is")


def test_documents_have_no_frames_and_end_once():
    pages = talk(turn("document", "a"), turn("document", "b", learn=True))
    for template in (INSTRUCT, CHATML, RAW):
        assert spell(template, pages) == "a{b}{.}"
        assert spell(template, pages, reply=True) == "a{b}"


def test_an_unlearnt_suffix_keeps_the_end_learnt():
    template = ChatTemplate(assistant_suffix="\n", learn_suffix=False)
    spelt = spell(template, talk(turn("user", "a"), turn("assistant", "b", learn=True)))
    assert spelt == "a{b}\n{.}"


def test_a_system_text_alone_is_a_document_of_its_own():
    assert spell(RAW, talk(turn("system", "a"))) == "a."
    assert spell(INSTRUCT, talk(turn("system", "a")), reply=True) == "a"


@pytest.mark.parametrize("changes", [{}, {"assistant_suffix": "\n", "learn_suffix": False}])
def test_a_template_that_never_ends_is_refused(changes):
    with pytest.raises(ConfigError, match="never learn to stop"):
        ChatTemplate(close_with_eos=False, **changes)


@pytest.mark.parametrize(("each", "expected"), [(True, "a*/*/b"), (False, "a**/b")])
def test_what_stands_behind_pictures(each, expected):
    template = ChatTemplate(picture_suffix="/", suffix_each_picture=each)
    picture = ReadImage(picture=Image.new("RGB", (2, 2)))
    parts = (Text(text="a"), picture, picture, Text(text="b"))
    asked = Conversation(turns=(Turn(role="user", parts=parts),))
    pieces = template.render(asked, reply=True)
    spelt = [
        piece.text if isinstance(piece, Frame) else getattr(piece.part, "text", "*")
        for piece in pieces
    ]
    assert "".join(spelt) == expected


def test_a_gap_stands_before_an_answer_that_is_there():
    template = ChatTemplate(user_suffix=" ", assistant_prefix="A:", assistant_gap=" ")
    assert spell(template, talk(turn("user", "a")), reply=True) == "a A:"
    answered = talk(turn("user", "a"), turn("assistant", "b", learn=True))
    assert spell(template, answered) == "a A:{ }{b}{.}"
    begun = talk(turn("user", "a"), turn("assistant", "b"))
    assert spell(template, begun, reply=True) == "a A: b"
