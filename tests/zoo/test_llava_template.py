"""The written Jinja program renders what the processor encodes."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mllm_npu.processing.chat_template import ChatTemplate, End, Frame, Said
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.zoo.llava_chat import CHAT_FORMATS
from mllm_npu.zoo.llava_template import make_jinja

CHATS = {
    "a question": [("user", ["what is this?"])],
    "one picture": [("user", ["<image>", "what is this?"])],
    "two pictures": [("user", ["<image>", "<image>", "which?"])],
    "a picture between": [("user", ["look:", "<image>", "and say", "<image>"])],
    "several turns": [
        ("system", ["be brief"]),
        ("user", ["<image>", "what is this?"]),
        ("assistant", ["a cat"]),
        ("user", ["sure?"]),
    ],
}


def render_here(template, chat, picture, *, reply):
    turns = tuple(
        Turn(
            role=role,
            parts=tuple(
                ReadImage(picture=picture) if part == "<image>" else Text(text=part)
                for part in parts
            ),
        )
        for role, parts in chat
    )
    said = []
    for piece in template.render(Conversation(turns=turns), reply=reply):
        match piece:
            case Frame(text=text) | Said(part=Text(text=text)):
                said.append(text)
            case Said():
                said.append("<image>")
            case End():
                said.append("</s>")
    return "".join(said)


def render_there(template, chat, *, reply, plain=False):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    program = environment.from_string(make_jinja(template, "<image>"))
    messages = [
        {
            "role": role,
            "content": "".join(parts)
            if plain
            else [
                {"type": "image"} if part == "<image>" else {"type": "text", "text": part}
                for part in parts
            ],
        }
        for role, parts in chat
    ]
    return program.render(messages=messages, add_generation_prompt=reply, eos_token="</s>")


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_both_render_the_same(name, chat, pictures):
    template = ChatTemplate(**CHAT_FORMATS[name])
    here = render_here(template, CHATS[chat], pictures["odd"], reply=True)
    assert render_there(template, CHATS[chat], reply=True) == here
    answered = [*CHATS[chat], ("assistant", ["a dog"])]
    here = render_here(template, answered, pictures["odd"], reply=False)
    assert render_there(template, answered, reply=False) == here


def test_content_may_be_a_plain_text():
    template = ChatTemplate(**CHAT_FORMATS["vicuna"])
    chat = [("user", ["what is this?"]), ("assistant", ["a cat"])]
    assert render_there(template, chat, reply=False, plain=True) == (
        "USER: what is this? ASSISTANT: a cat</s>"
    )


def test_quotes_and_braces_of_a_frame_are_text():
    template = ChatTemplate(user_prefix='{{ "a" }} \\ "', assistant_prefix="{% x %}")
    assert render_there(template, [("user", ["b"])], reply=True) == '{{ "a" }} \\ "b{% x %}'


def test_the_end_of_text_may_be_spelt():
    program = make_jinja(ChatTemplate(assistant_prefix="A:"), "<image>", eos_token="<end>")
    assert '"<end>"' in program
    assert "eos_token" not in program
