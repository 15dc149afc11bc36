import pytest

from mllm_npu.data.tasks.edit import Edit
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text


@pytest.fixture
def row(make_row, png):
    pictures = {"source__png": png(20, 10), "target__jpg": png(30, 10)}
    return make_row(json_member={"instruction": "make it red"}, **pictures)


def test_reads_the_source_and_draws_the_target(row, rng):
    user, assistant = Edit().to_conversation(row, rng).turns
    assert [type(part) for part in user.parts] == [ReadImage, Text]
    assert user.parts[0].picture.size == (20, 10)
    assert isinstance(assistant.parts[0], DrawnImage)
    assert assistant.parts[0].picture.size == (30, 10)
    assert assistant.learn


def test_a_document_does_not_learn_the_instruction(row, rng):
    (turn,) = Edit(chat=False).to_conversation(row, rng).turns
    assert turn.parts[1] == Text(text="make it red", learn=False)


def test_measures_the_source_only(row, count_words):
    (form,) = Edit().measure(row, count_words)
    assert (form.num_text_tokens, form.reads, form.num_drawn) == (3, ((20, 10),), 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json_member": {}}, "instruction missing"),
        ({"source__png": None}, "source picture missing"),
        ({"target__png": None}, "target picture missing"),
    ],
)
def test_incomplete_rows_are_skipped(make_row, png, rng, count_words, changes, reason):
    members = {"json_member": {"instruction": "x"}, "source__png": png(), "target__png": png()}
    members = {name: value for name, value in {**members, **changes}.items() if value is not None}
    row = make_row(**members)
    with pytest.raises(SkipSample, match=reason):
        Edit().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Edit().measure(row, count_words)
