import pytest

from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import ReadImage, Text


@pytest.fixture
def row(make_row, png):
    texts = ["read it", "4 0 7", "how many?", "three"]
    return make_row(json_member={"conversations": texts}, png=png(48, 17))


def test_the_picture_stands_before_the_first_question(row, rng):
    turns = Ocr().to_conversation(row, rng).turns
    assert [turn.role for turn in turns] == ["user", "assistant"] * 2
    assert [turn.learn for turn in turns] == [False, True] * 2
    assert isinstance(turns[0].parts[0], ReadImage)
    assert [turn.parts[-1].text for turn in turns] == ["read it", "4 0 7", "how many?", "three"]
    assert [len(turn.parts) for turn in turns] == [2, 1, 1, 1]


def test_a_document_learns_answers_only(row, rng):
    (turn,) = Ocr(chat=False).to_conversation(row, rng).turns
    assert isinstance(turn.parts[0], ReadImage)
    assert [part.learn for part in turn.parts[1:]] == [False, True, False, True]
    assert turn.parts[2] == Text(text="4 0 7", learn=True)


def test_original_rows_call_the_list_data(make_row, png, rng):
    row = make_row(json_member={"data": ["q", "a"]}, jpg=png())
    assert len(Ocr().to_conversation(row, rng).turns) == 2


def test_the_form_has_all_turns(row, count_words):
    (form,) = Ocr().forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens, form.num_drawn) == (8, 4, 0)
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 2, 2)
    assert form.reads == ((48, 17),)
    (form,) = Ocr(chat=False).forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (8, 4)
    assert (form.num_users, form.num_assistants) == (0, 0)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("texts", [["read it", "4 0 7"], [" how many? ", "three", "七?", "ü"]])
def test_lengths_are_exact(make_row, png, assert_exact, size, chat, texts):
    row = make_row(json_member={"conversations": texts}, png=png(*size))
    assert_exact(Ocr(chat=chat), row)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (None, "conversations missing"),
        ([], "conversations missing"),
        (["q"], "without an answer"),
        (["q", " "], "empty"),
        (["q", 3], "empty"),
    ],
)
def test_broken_rows_are_skipped(make_row, png, rng, count_words, texts, reason):
    row = make_row(json_member={"conversations": texts}, png=png())
    with pytest.raises(SkipSample, match=reason):
        Ocr().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Ocr().forms(row, count_words)


def test_a_row_without_a_picture_is_skipped(make_row, rng, count_words):
    row = make_row(json_member={"data": ["q", "a"]})
    with pytest.raises(SkipSample, match="picture missing"):
        Ocr().to_conversation(row, rng)
    with pytest.raises(SkipSample, match="picture missing"):
        Ocr().forms(row, count_words)
