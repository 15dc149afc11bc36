import pytest

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.data.forms import FormTable
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


def test_the_form_has_read_and_drawn_pictures(make_row, png, count_words):
    row = make_row(json_member={"parts": PARTS}, _0__png=png(20, 10), _1__png=png())
    (form,) = Interleaved().forms(row, count_words)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (2, 1)
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 0, 0)
    assert (form.reads, form.num_drawn) == (((20, 10),), 1)


@pytest.mark.parametrize("learn", [None, True, False])
@pytest.mark.parametrize("draw", [None, True, False])
def test_lengths_are_exact(make_row, png, assert_exact, size, learn, draw):
    parts = [
        *PARTS,
        {"text": " a red circle", "learn": learn},
        {"image": "2.png", "draw": draw},
        {"text": "the end"},
    ]
    pictures = {"_0__png": png(*size), "_1__png": png(96, 16), "_2__png": png(16, 40)}
    assert_exact(Interleaved(), make_row(json_member={"parts": parts}, **pictures))


@pytest.mark.parametrize("learn", [0, 1, ""])
def test_what_is_learnt_is_counted_as_it_is_labelled(
    make_row, make_processor, tokenizer, rng, learn
):
    processor = make_processor(tokenizer)
    row = make_row(json_member={"parts": [{"text": "seven", "learn": learn}, {"text": "red"}]})
    sample = processor.encode(Interleaved().to_conversation(row, rng))
    totals = FormTable.of([Interleaved().forms(row, processor.count_tokens)]).totals()
    num_labels = int((sample.labels != IGNORED_LABEL).sum())
    assert totals.num_targets(processor.length_rule) == num_labels


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (None, "parts missing"),
        ([], "parts missing"),
        (["text"], "not an object"),
        ([{}], "without text or image"),
        ([{"text": ""}], "without text or image"),
        ([{"text": 3}], "without text or image"),
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
        Interleaved().forms(row, count_words)
