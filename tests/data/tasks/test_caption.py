from collections import Counter
from random import Random

import pytest

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import ConfigError, SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text


@pytest.fixture
def row(make_row, png):
    return make_row("k7", json_member={"caption": " a seven "}, png=png(20, 10))


def kinds(turn):
    return [type(part) for part in turn.parts]


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


def test_measures_both_directions_with_their_longest_prompts(row, count_words):
    task = Caption(
        read_prompts=["", "tell me"], draw_prompts=["{caption}", "please draw {caption}"]
    )
    read, draw = task.measure(row, count_words)
    assert (read.num_text_tokens, read.reads, read.num_drawn) == (4, ((20, 10),), 0)
    assert (draw.num_text_tokens, draw.reads, draw.num_drawn) == (6, (), 1)
    assert len(Caption(draw_share=0).measure(row, count_words)) == 1
    assert len(Caption(draw_share=1).measure(row, count_words)) == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"json_member": {"caption": ""}}, "caption empty"),
        ({"json_member": {"text": "x"}}, "caption missing"),
        ({"json_member": {"caption": []}}, "caption missing"),
        ({"txt": b" "}, "caption empty"),
        ({}, "txt member missing"),
    ],
)
def test_rows_without_a_caption_are_skipped(make_row, png, rng, count_words, members, reason):
    row = make_row(**members, png=png())
    with pytest.raises(SkipSample, match=reason):
        Caption().to_conversation(row, rng)
    with pytest.raises(SkipSample, match=reason):
        Caption().measure(row, count_words)


def test_a_row_without_a_picture_is_skipped(make_row, rng):
    with pytest.raises(SkipSample, match="picture missing"):
        Caption().to_conversation(make_row(txt=b"x"), rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw_share": 1.5}, r"draw_share=1\.5"),
        ({"read_prompts": []}, "at least one"),
        ({"draw_prompts": ["draw it"]}, "has no"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Caption(**options)


@pytest.mark.parametrize(
    ("limits", "size", "similarity", "reason"),
    [
        ({"min_similarity": 0.3}, (20, 20), 0.2, "similarity"),
        ({"min_similarity": 0.3}, (20, 20), 0.3, None),
        ({"min_similarity": 0.3}, (20, 20), None, None),
        ({"min_resolution": 21}, (40, 20), None, "too small"),
        ({"min_resolution": 20}, (40, 20), None, None),
        ({"min_aspect_ratio": 0.6}, (20, 40), None, "too narrow"),
        ({"min_aspect_ratio": 0.5}, (20, 40), None, None),
    ],
)
def test_rows_below_a_limit_are_skipped(make_row, png, limits, size, similarity, reason):
    words = {"caption": "a cat"} | ({} if similarity is None else {"similarity": similarity})
    row, task = make_row(json_member=words, png=png(*size)), Caption(**limits)
    if reason is None:
        assert task.measure(row, len)
        assert task.to_conversation(row, Random(0)).turns
        return
    with pytest.raises(SkipSample, match=reason):
        task.measure(row, len)
    with pytest.raises(SkipSample, match=reason):
        task.to_conversation(row, Random(0))
