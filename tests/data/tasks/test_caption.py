from collections import Counter
from random import Random

import pytest

from mllm_npu.data.forms import FormTable
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.task import MOST_FORMS
from mllm_npu.errors import ConfigError, SampleFiltered, SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text


@pytest.fixture
def row(make_row, png):
    return make_row("k7", json_member={"caption": " a seven "}, png=png(20, 10))


def kinds(turn):
    return [type(part) for part in turn.parts]


def texts(talk):
    return [part.text for turn in talk.turns for part in turn.parts if isinstance(part, Text)]


def test_reading_learns_the_caption_behind_picture_and_prompt(row, rng):
    task = Caption(draw_share=0, read_prompts=["what is it?"])
    talk = task.to_conversation(row, rng)
    (turn,) = talk.turns
    assert (talk.key, talk.task) == ("k7", "caption")
    assert (turn.role, turn.learn) == ("document", True)
    assert kinds(turn) == [ReadImage, Text, Text]
    assert turn.parts[1] == Text(text="what is it?", learn=False)
    assert turn.parts[2] == Text(text="a seven")


def test_drawing_puts_the_caption_into_the_prompt_without_learning_it(row, rng):
    talk = Caption(draw_share=1, draw_prompts=["draw {caption}!"]).to_conversation(row, rng)
    prompt, picture = talk.turns[0].parts
    assert prompt == Text(text="draw a seven!", learn=False)
    assert isinstance(picture, DrawnImage)
    assert picture.picture.size == (20, 10)


def test_chat_makes_two_turns(row, rng):
    for share, answer in ((0, Text), (1, DrawnImage)):
        user, assistant = Caption(draw_share=share, chat=True).to_conversation(row, rng).turns
        assert (user.role, user.learn, assistant.role, assistant.learn) == (
            "user",
            False,
            "assistant",
            True,
        )
        assert kinds(assistant) == [answer]


def test_draw_share_and_prompts_follow_the_rng(row):
    task = Caption(draw_share=0.25, read_prompts=["", "a", "b"], draw_prompts=["{caption}"])
    found = Counter()
    for seed in range(800):
        parts = task.to_conversation(row, Random(seed)).turns[0].parts
        found[type(parts[-1])] += 1
        found["prompts", len(parts)] += 1
    assert 150 < found[DrawnImage] < 250
    assert found["prompts", 3] > 300
    again = [task.to_conversation(row, Random(5)).turns[0].parts[-1] for _ in range(2)]
    assert type(again[0]) is type(again[1])


def test_one_of_several_captions_and_text_members(make_row, png):
    several = make_row(json_member={"caption": ["one", "two"]}, png=png())
    task = Caption(draw_share=0)
    said = {task.to_conversation(several, Random(n)).turns[0].parts[-1].text for n in range(20)}
    assert said == {"one", "two"}
    plain = make_row(txt=b"three", jpg=png())
    assert task.to_conversation(plain, Random(0)).turns[0].parts[-1].text == "three"


def test_every_combination_is_a_form_of_its_own(make_row, png, count_words):
    row = make_row(json_member={"caption": ["one", "one two"]}, png=png(20, 10))
    task = Caption(
        draw_share=0.25,
        read_prompts=["", "tell me"],
        draw_prompts=["{caption}", "please draw {caption} now", "{caption} {caption}"],
    )
    forms = task.forms(row, count_words)
    told = [(form.num_drawn, form.num_text_tokens, form.num_learnt_tokens) for form in forms]
    assert told == [
        *[(0, 1, 1), (0, 2, 2), (0, 3, 1), (0, 4, 2)],
        *[(1, 1, 0), (1, 2, 0), (1, 4, 0), (1, 5, 0), (1, 2, 0), (1, 4, 0)],
    ]
    assert [form.share for form in forms] == pytest.approx([0.75 / 4] * 4 + [0.25 / 6] * 6)
    assert [form.reads for form in forms] == [((20, 10),)] * 4 + [()] * 6
    assert {(form.num_users, form.num_assistants) for form in forms} == {(0, 0)}
    made = [texts(task.to_conversation(row, Random(9), number)) for number in range(len(forms))]
    assert made[:4] == [["one"], ["one two"], ["tell me", "one"], ["tell me", "one two"]]
    assert made[4:8] == [["one"], ["one two"], ["please draw one now"], ["please draw one two now"]]
    assert made[8:] == [["one one"], ["one two one two"]]


def test_a_direction_without_share_has_no_form(row, count_words):
    [read] = Caption(draw_share=0, chat=True).forms(row, count_words)
    [draw] = Caption(draw_share=1, chat=True).forms(row, count_words)
    assert (read.num_drawn, draw.num_drawn) == (0, 1)
    assert {(form.num_users, form.num_assistants) for form in (read, draw)} == {(1, 1)}


@pytest.mark.parametrize("num_captions", [MOST_FORMS // 2, MOST_FORMS // 2 + 1])
def test_rows_with_many_combinations_are_told_by_their_longest(
    make_row, png, count_words, num_captions
):
    captions = [" ".join(["word"] * (number + 1)) for number in range(num_captions)]
    row = make_row(json_member={"caption": captions}, png=png(20, 10))
    task = Caption(draw_share=0.3, draw_prompts=["draw {caption}"])
    forms = task.forms(row, count_words)
    if 2 * num_captions <= MOST_FORMS:
        assert len(forms) == 2 * num_captions
        return
    read, draw = forms
    assert (read.num_text_tokens, read.num_learnt_tokens) == (num_captions, num_captions)
    assert (draw.num_text_tokens, draw.num_learnt_tokens) == (num_captions + 1, 0)
    assert (read.share, draw.share) == pytest.approx((0.7, 0.3))
    for form, told in enumerate(forms):
        lengths = Counter(
            sum(map(count_words, texts(task.to_conversation(row, Random(seed), form))))
            for seed in range(300)
        )
        assert max(lengths) == told.num_text_tokens
        assert len(lengths) == num_captions
        talk = task.to_conversation(row, Random(0), form)
        assert isinstance(talk.turns[0].parts[-1], DrawnImage) == bool(told.num_drawn)


def test_the_longest_prompt_and_caption_of_an_open_form_need_not_be_the_longest_text(
    make_row, png, count_words
):
    captions = ["short"] * 8 + ["a rather long caption"]
    row = make_row(json_member={"caption": captions}, png=png())
    task = Caption(draw_prompts=["{caption} {caption}", "please do draw it: {caption}"])
    read, draw = task.forms(row, count_words)
    assert (read.num_text_tokens, draw.num_text_tokens) == (4, 8)


@pytest.mark.parametrize("chat", [False, True])
def test_lengths_are_exact(make_row, png, assert_exact, size, chat):
    words = {"caption": ["a red circle", "seven", "größer 七"]}
    row = make_row(json_member=words, png=png(*size))
    task = Caption(
        draw_share=0.3,
        read_prompts=["", "which digit is this?"],
        draw_prompts=["{caption}", "draw {caption} at the top left"],
        chat=chat,
    )
    assert len(assert_exact(task, row)) == 12


def test_an_open_form_is_never_longer_than_told_and_can_be_as_long(
    make_row, png, make_processor, tokenizer
):
    processor = make_processor(tokenizer, max_tokens=1000)
    captions = ["red " * number for number in range(1, 10)]
    row = make_row(json_member={"caption": captions}, png=png(48, 16))
    task = Caption(draw_prompts=["{caption}", "draw {caption}"])
    table = FormTable.of([task.forms(row, processor.count_tokens)])
    told = table.tokens(processor.length_rule, processor.any_resolution)
    for form in range(2):
        lengths = {
            processor.encode(task.to_conversation(row, Random(seed), form)).num_tokens
            for seed in range(150)
        }
        assert max(lengths) == told[form]
        assert len(lengths) > 5


def test_a_form_that_is_not_there_is_the_last(row):
    talk = Caption().to_conversation(row, Random(0), 99)
    assert isinstance(talk.turns[0].parts[-1], DrawnImage)


def test_the_same_task_takes_rows_with_any_number_of_captions(make_row, png, count_words):
    task = Caption(draw_share=0)
    for count in (1, 3, 1, 2):
        row = make_row(json_member={"caption": ["x"] * count}, png=png())
        assert len(task.forms(row, count_words)) == count


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"json_member": {"caption": ""}}, "caption empty"),
        ({"json_member": {"text": "x"}}, "caption missing"),
        ({"json_member": {"caption": []}}, "caption missing"),
        ({"json_member": {"caption": ["x", 3]}}, "caption missing"),
        ({"json_member": {"caption": ["x", " "]}}, "caption empty"),
        ({"txt": b" "}, "caption empty"),
        ({}, "txt member missing"),
    ],
)
def test_rows_without_a_caption_are_skipped(make_row, png, rng, count_words, members, reason):
    row = make_row(**members, png=png())
    for read in (Caption().to_conversation, Caption().forms):
        with pytest.raises(SkipSample, match=reason) as skipped:
            read(row, rng if read.__name__ == "to_conversation" else count_words)
        assert not isinstance(skipped.value, SampleFiltered)


def test_a_row_without_a_picture_is_skipped(make_row, rng, count_words):
    with pytest.raises(SkipSample, match="picture missing"):
        Caption().to_conversation(make_row(txt=b"x"), rng)
    with pytest.raises(SkipSample, match="picture missing"):
        Caption().forms(make_row(txt=b"x"), count_words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw_share": 1.5}, r"draw_share=1\.5"),
        ({"draw_share": -0.1}, r"draw_share=-0\.1"),
        ({"read_prompts": []}, "at least one"),
        ({"draw_prompts": []}, "at least one"),
        ({"draw_prompts": ["draw it"]}, "has no"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Caption(**options)


@pytest.mark.parametrize(
    ("limits", "size", "stated", "reason"),
    [
        ({"min_similarity": 0.3}, (20, 20), {"similarity": 0.2}, "similarity"),
        ({"min_similarity": 0.3}, (20, 20), {"similarity": 0.3}, None),
        ({"min_similarity": 0.3}, (20, 20), {}, None),
        ({"min_similarity": 0.3}, (20, 20), {"score": 0.2}, "similarity"),
        ({"min_similarity": 0.3}, (20, 20), {"SCORE": 0.2}, "similarity"),
        ({"min_similarity": 0.3}, (20, 20), {"all_similarities": [0.1, 0.2]}, "similarity"),
        ({"min_similarity": 0.3}, (20, 20), {"all_similarities": [0.4, 0.2]}, None),
        ({}, (20, 20), {"similarity": -1}, None),
        ({"min_resolution": 21}, (40, 20), {}, "too small"),
        ({"min_resolution": 20}, (40, 20), {}, None),
        ({"min_aspect_ratio": 0.6}, (20, 40), {}, "too narrow"),
        ({"min_aspect_ratio": 0.5}, (20, 40), {}, None),
    ],
)
def test_rows_below_a_limit_are_filtered(make_row, png, limits, size, stated, reason):
    row, task = (
        make_row(json_member={"caption": "a cat", **stated}, png=png(*size)),
        Caption(**limits),
    )
    if reason is None:
        assert task.forms(row, len)
        assert task.to_conversation(row, Random(0)).turns
        return
    with pytest.raises(SampleFiltered, match=reason):
        task.forms(row, len)
    with pytest.raises(SampleFiltered, match=reason):
        task.to_conversation(row, Random(0))
