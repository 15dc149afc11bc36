import pytest

from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text

PARTS = [
    {"text": "first "},
    {"image": "0.png"},
    {"text": " then", "learn": False},
    {"image": "1.png", "draw": True},
]


def test_parts_keep_their_order_blanks_and_roles(make_row, png, rng):
    row = make_row(json_member={"parts": PARTS}, _0__png=png(20, 10), _1__png=png())
    (turn,) = Interleaved().to_conversation(row, rng).turns
    assert (turn.role, turn.learn) == ("document", True)
    assert [type(part) for part in turn.parts] == [Text, ReadImage, Text, DrawnImage]
    assert turn.parts[0] == Text(text="first ")
    assert turn.parts[2] == Text(text=" then", learn=False)
    assert turn.parts[1].picture.size == (20, 10)


def test_measures_read_and_drawn_pictures(make_row, png, count_words):
    row = make_row(json_member={"parts": PARTS}, _0__png=png(20, 10), _1__png=png())
    (form,) = Interleaved().measure(row, count_words)
    assert (form.num_text_tokens, form.num_turns) == (2, 0)
    assert (form.reads, form.num_drawn) == (((20, 10),), 1)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (None, "parts missing"),
        ([], "parts missing"),
        (["text"], "not an object"),
        ([{}], "without text or image"),
        ([{"text": ""}], "without text or image"),
        ([{"image": 3}], "without text or image"),
        ([{"image": "9.png"}], "picture missing"),
        ([{"image": "../../etc/passwd"}], "picture missing"),
    ],
)
def test_broken_documents_are_skipped(make_row, png, rng, count_words, parts, reason):
    row = make_row(json_member={"parts": parts}, _0__png=png())
    with pytest.raises(SkipSample, match=reason):
        Interleaved().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Interleaved().measure(row, count_words)
