"""A question becomes the one form that everything is encoded from."""

import dataclasses

import pytest
from PIL import Image

from mllm_npu.processing.conversation import ReadImage, Text, Turn, ask


def test_a_question_comes_after_its_pictures():
    picture = Image.new("RGB", (2, 2))
    talk = ask("What is it?", [picture], system="Be brief.")
    system, user = talk.turns
    assert system == Turn(role="system", parts=(Text(text="Be brief."),))
    assert user.parts == (ReadImage(picture=picture), Text(text="What is it?"))
    assert not user.learn


def test_nothing_asked_is_an_empty_turn_without_system():
    assert ask("").turns == (Turn(role="user", parts=()),)


def test_a_conversation_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ask("x").key = "other"
