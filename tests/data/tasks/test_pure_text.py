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
    (form,) = PureText().measure(row, count_words)
    assert (form.num_text_tokens, form.reads, form.num_drawn) == (2, (), 0)


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
        PureText().measure(make_row(**members), count_words)
