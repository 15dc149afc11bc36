import pytest

from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text

MESSAGES = [
    {
        "role": "user",
        "content": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "what is it?"}],
    },
    {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "draw it"},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "here"}, {"type": "image", "image": "1.png"}],
    },
]


@pytest.fixture
def row(make_row, png):
    return make_row(json_member={"messages": MESSAGES}, _0__png=png(20, 10), _1__png=png())


def test_assistant_turns_are_learnt_and_their_pictures_drawn(row, rng):
    talk = Instruction().to_conversation(row, rng)
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    assert [turn.learn for turn in talk.turns] == [False, True] * 2
    kinds = [[type(part) for part in turn.parts] for turn in talk.turns]
    assert kinds == [[ReadImage, Text], [Text], [Text], [Text, DrawnImage]]


def test_a_system_prompt_is_put_in_front_unless_the_row_has_one(row, make_row, rng, count_words):
    task = Instruction(system="be brief")
    first = task.to_conversation(row, rng).turns[0]
    assert (first.role, first.learn, first.parts) == ("system", False, (Text(text="be brief"),))
    own = make_row(json_member={"messages": [{"role": "system", "content": "own"}, MESSAGES[1]]})
    turns = task.to_conversation(own, rng).turns
    assert [turn.role for turn in turns] == ["system", "assistant"]
    assert turns[0].parts == (Text(text="own"),)
    (form,) = task.forms(row, count_words)
    assert (form.num_systems, form.num_users, form.num_assistants) == (1, 2, 2)
    assert form.num_text_tokens == 9
    (form,) = task.forms(own, count_words)
    assert (form.num_systems, form.num_users, form.num_assistants) == (1, 0, 1)


def test_the_form_counts_pictures_by_who_shows_them(row, count_words):
    (form,) = Instruction().forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (7, 2)
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 2, 2)
    assert (form.reads, form.num_drawn) == (((20, 10),), 1)


@pytest.mark.parametrize("system", ["", "at the top"])
@pytest.mark.parametrize("kept", [slice(None), slice(2), slice(3), slice(1, None)])
def test_lengths_are_exact(make_row, png, assert_exact, size, system, kept):
    words = {"messages": MESSAGES[kept]}
    row = make_row(json_member=words, _0__png=png(*size), _1__png=png(96, 16))
    assert_exact(Instruction(system=system), row)


def test_lengths_of_rows_with_their_own_system_turn_are_exact(make_row, png, assert_exact):
    shown = [{"type": "text", "text": "red"}, {"type": "image", "image": "0.png"}]
    turns = [{"role": "system", "content": shown}, *MESSAGES, {"role": "system", "content": "left"}]
    row = make_row(json_member={"messages": turns}, _0__png=png(40, 16), _1__png=png())
    assert_exact(Instruction(), row)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "messages missing"),
        ([], "messages missing"),
        (["hello"], "unknown role"),
        ([{"role": "gpt", "content": "x"}], "unknown role"),
        ([{"role": "user", "content": "x"}], "no answer to learn"),
        ([{"role": "assistant", "content": []}], "without content"),
        ([{"role": "assistant", "content": None}], "without content"),
        ([{"role": "assistant", "content": [{"type": "video"}]}], "unknown type"),
        ([{"role": "assistant", "content": ["text"]}], "unknown type"),
        ([{"role": "assistant", "content": ""}], "missing"),
        ([{"role": "assistant", "content": [{"type": "image", "image": 1}]}], "missing"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "9.png"}]}, MESSAGES[1]],
            "missing",
        ),
    ],
)
def test_broken_messages_are_skipped(make_row, png, rng, count_words, messages, reason):
    row = make_row(json_member={"messages": messages}, _0__png=png())
    with pytest.raises(SkipSample, match=reason):
        Instruction().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Instruction().forms(row, count_words)
