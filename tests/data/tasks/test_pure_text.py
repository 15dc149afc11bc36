import pytest

from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import SkipSample


@pytest.mark.parametrize(
    "members", [{"txt": b" two words\n"}, {"json_member": {"text": "two words"}}]
)
def test_all_of_the_text_is_learnt(make_row, rng, count_words, members):
    row = make_row("t", **members)
    talk = PureText().to_conversation(row, rng)
    (turn,) = talk.turns
    assert (talk.key, talk.task, turn.role, turn.learn) == ("t", "pure_text", "document", True)
    assert [part.text for part in turn.parts] == ["two words"]
    (form,) = PureText().forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (2, 2)
    assert (form.reads, form.num_drawn) == ((), 0)
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 0, 0)


@pytest.mark.parametrize("text", [" a red circle\n", "7", "größer 七 😀\n\n which digit"])
def test_lengths_are_exact(make_row, assert_exact, text):
    [sample] = assert_exact(PureText(), make_row(json_member={"text": text}))
    assert_exact(PureText(), make_row(txt=text.encode()))
    assert (sample.labels[1:] == sample.input_ids[1:]).all()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"txt": b" "}, "text empty"),
        ({"json_member": {"text": " "}}, "text empty"),
        ({"json_member": {}}, "text missing"),
        ({"png": b"x"}, "txt member missing"),
    ],
)
def test_rows_without_text_are_skipped(make_row, rng, count_words, members, reason):
    with pytest.raises(SkipSample, match=reason):
        PureText().to_conversation(make_row(**members), rng)
    with pytest.raises(SkipSample, match=reason):
        PureText().forms(make_row(**members), count_words)
