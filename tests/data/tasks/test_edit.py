import pytest

from mllm_npu.data.tasks.edit import Edit
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text

TURNS = [
    {"instruction": "make it red", "target": "1.jpg"},
    {"instruction": " now a circle ", "target": "2.png"},
]


@pytest.fixture
def row(make_row, png):
    pictures = {"source__png": png(20, 10), "target__jpg": png(30, 10)}
    return make_row(json_member={"instruction": "make it red"}, **pictures)


@pytest.fixture
def long_row(make_row, png):
    # The order in the shard is not the order of the turns.
    pictures = {"_2__png": png(40, 10), "_0__png": png(20, 10), "_1__jpg": png(30, 10)}
    return make_row(json_member={"source": "0.png", "turns": TURNS}, **pictures)


def shown(turn):
    return [
        (type(part), part.text if isinstance(part, Text) else part.picture.size)
        for part in turn.parts
    ]


def test_reads_the_source_and_draws_the_target(row, rng):
    user, assistant = Edit().to_conversation(row, rng).turns
    assert [type(part) for part in user.parts] == [ReadImage, Text]
    assert user.parts[0].picture.size == (20, 10)
    assert isinstance(assistant.parts[0], DrawnImage)
    assert assistant.parts[0].picture.size == (30, 10)
    assert (user.learn, assistant.learn) == (False, True)


def test_several_turns_change_the_picture_again_and_again(long_row, rng):
    talk = Edit().to_conversation(long_row, rng)
    assert [(turn.role, turn.learn) for turn in talk.turns] == [
        ("user", False),
        ("assistant", True),
    ] * 2
    assert [shown(turn) for turn in talk.turns] == [
        [(ReadImage, (20, 10)), (Text, "make it red")],
        [(DrawnImage, (30, 10))],
        [(Text, "now a circle")],
        [(DrawnImage, (40, 10))],
    ]
    assert talk.task == "edit"


def test_a_document_does_not_learn_the_instruction(row, long_row, rng):
    (turn,) = Edit(chat=False).to_conversation(row, rng).turns
    assert turn.parts[1] == Text(text="make it red", learn=False)
    (turn,) = Edit(chat=False).to_conversation(long_row, rng).turns
    assert (turn.role, turn.learn) == ("document", True)
    assert [kind for kind, _ in shown(turn)] == [ReadImage, Text, DrawnImage, Text, DrawnImage]
    assert [part.learn for part in turn.parts if isinstance(part, Text)] == [False, False]


def test_the_form_has_the_source_and_every_drawn_picture(row, long_row, count_words):
    (form,) = Edit().forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (3, 0)
    assert (form.reads, form.num_drawn) == (((20, 10),), 1)
    (form,) = Edit().forms(long_row, count_words)
    assert (form.num_text_tokens, form.reads, form.num_drawn) == (6, ((20, 10),), 2)
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 2, 2)
    (form,) = Edit(chat=False).forms(long_row, count_words)
    assert (form.num_users, form.num_assistants) == (0, 0)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("num_turns", [0, 1, 3])
def test_lengths_are_exact(make_row, png, assert_exact, size, chat, num_turns):
    pictures = {"source__png": png(*size), "target__png": png(48, 16)}
    turn = {"instruction": "a red circle", "target": "target.png"}
    words = {"source": "source.png", "turns": [turn] * num_turns}
    if not num_turns:
        words = {"instruction": "a red circle"}
    [sample] = assert_exact(Edit(chat=chat), make_row(json_member=words, **pictures))
    assert len(sample.draw_tiles) == max(num_turns, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json_member": {}}, "instruction missing"),
        ({"json_member": {"instruction": " "}}, "instruction empty"),
        ({"source__png": None}, "source picture missing"),
        ({"target__png": None}, "target picture missing"),
        ({"target__png": b"rubbish"}, "picture cannot be read"),
        ({"json_member": {"source": "source.png", "turns": []}}, "turns of an edit missing"),
        ({"json_member": {"source": "source.png", "turns": "x"}}, "turns of an edit missing"),
        ({"json_member": {"source": "source.png", "turns": [1]}}, "turns of an edit missing"),
    ],
)
def test_incomplete_rows_are_skipped(make_row, png, rng, count_words, changes, reason):
    members = {"json_member": {"instruction": "x"}, "source__png": png(), "target__png": png()}
    members = {name: value for name, value in {**members, **changes}.items() if value is not None}
    row = make_row(**members)
    with pytest.raises(SkipSample, match=reason):
        Edit().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Edit().forms(row, count_words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"turns": TURNS}, "source missing"),
        ({"source": "9.png", "turns": TURNS}, "picture missing"),
        ({"source": "0.png", "turns": [TURNS[0], {"target": "2.png"}]}, "instruction missing"),
        ({"source": "0.png", "turns": [TURNS[0], {"instruction": "x"}]}, "target missing"),
        (
            {"source": "0.png", "turns": [TURNS[0], {"instruction": "x", "target": "7.png"}]},
            "picture missing",
        ),
    ],
)
def test_several_turns_of_which_one_lacks_something_are_skipped(
    make_row, png, rng, count_words, words, reason
):
    row = make_row(json_member=words, _0__png=png(), _1__jpg=png(), _2__png=png())
    with pytest.raises(SkipSample, match=reason):
        Edit().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Edit().forms(row, count_words)
