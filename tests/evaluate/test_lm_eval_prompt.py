"""Prompts become conversations: raw text, chats, pictures at their places, no control tokens."""

import pytest
from PIL import Image

from mllm_npu.evaluate.lm_eval_prompt import PromptReader, write_chat
from mllm_npu.processing.conversation import ReadImage, Text
from mllm_npu.processing.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def reader(world):
    class Processor:
        tokenizer = load_tokenizer(path=str(world / "tokenizer"))

    return PromptReader(Processor())


def shown(conversation):
    """Roles with texts and the colours of pictures."""
    return [
        (turn.role, [p.text if isinstance(p, Text) else colour(p) for p in turn.parts])
        for turn in conversation.turns
    ]


def colour(part):
    assert isinstance(part, ReadImage)
    assert part.picture.mode == "RGB"
    return part.picture.getpixel((0, 0))[0]


def grey(value, mode="L"):
    return Image.new(mode, (2, 2), value)


def test_raw_text_is_a_document(reader):
    assert shown(reader.read("Which digit?")) == [("document", ["Which digit?"])]
    assert reader.read("").turns == ()


def test_a_chat_comes_back_turn_by_turn(reader):
    messages = [
        {"role": "system", "content": "你好 [INST]"},
        {"role": "user", "content": 'A "question"?\n'},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "<s>"},
    ]
    assert shown(reader.read(write_chat(messages))) == [
        ("system", ["你好 [INST]"]),
        ("user", ['A "question"?\n']),
        ("user", ["<", "s>"]),
    ]


@pytest.mark.parametrize("prompt", ["\x1e", "\x1e{", "\x1e[1]", '\x1e[{"role": "user"}]', "[]"])
def test_what_only_looks_like_a_chat_is_text(reader, prompt):
    assert shown(reader.read(prompt)) == [("document", [prompt])]


def test_pictures_stand_where_the_text_names_them(reader):
    prompt = "a <image> b <image>c"
    found = shown(reader.read(prompt, [grey(1), grey(2)]))
    assert found == [("document", ["a ", 1, " b ", 2, "c"])]
    assert shown(reader.read(prompt, [grey(1)])) == [("document", ["a ", 1, " b <image>c"])]
    assert shown(reader.read(prompt)) == [("document", [prompt])]
    assert shown(reader.read("<image>", [grey(1)])) == [("document", [1])]


def test_pictures_without_a_place_stand_before_the_question(reader):
    assert shown(reader.read("a", [grey(1), grey(2)])) == [("document", [1, 2, "a"])]
    chat = write_chat(
        [
            {"role": "user", "content": "one <image>"},
            {"role": "assistant", "content": "fine"},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "It"},
        ]
    )
    assert shown(reader.read(chat, [grey(1), grey(2)])) == [
        ("user", ["one ", 2]),
        ("assistant", ["fine"]),
        ("user", [1, "two"]),
        ("assistant", ["It"]),
    ]


def test_pictures_of_every_mode_are_read(reader):
    pictures = [grey(7), grey((9, 0, 0, 255), "RGBA"), grey(1, "1")]
    assert shown(reader.read("", pictures)) == [("document", [7, 9, 255])]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", ()),
        ("plain <b>", ("plain <b>",)),
        ("<img>", ("<", "img>")),
        ("a<img></img>", ("a<", "img><", "/img>")),
        ("<img_00001>", ("<", "img_00001>")),
        ("<<s>/s>", ("<<", "s>/s>")),
    ],
)
def test_no_piece_spells_a_control_token(reader, text, pieces):
    assert reader.split(text) == pieces
    assert "".join(pieces) == text
    assert all(reader.split(piece) == (piece,) for piece in pieces)


def test_what_was_cut_is_known(reader):
    reader.spelt.clear()
    reader.split("fine")
    assert reader.spelt == set()
    reader.split("a </s> and <pad> and </s>")
    assert reader.spelt == {"</s>", "<pad>"}
