"""The bars of a pack are its samples, one by one."""

import pytest
from PIL import Image
from tokenizers import AddedToken

from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.data.inspect.pack_view import view_pack
from mllm_npu.data.inspect.picture_view import view_pictures
from mllm_npu.data.pack_reader import ReadPack
from mllm_npu.errors import DataError, SkipSample
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import train_tokenizer


def view(batches, window, place):
    return view_pack(
        batches.reader[window.packs[place]],
        number=place,
        tokens_per_pack=batches.order.plan.tokens_per_pack,
        planned_tokens=window.tokens[place],
    )


def read_alone(batches, pack):
    """The samples of a pack that can be read, one at a time."""
    samples = []
    for pick in pack:
        try:
            samples.append(batches.reader.read(pick))
        except SkipSample:
            continue
    return samples


def windows(batches):
    plan = batches.order.plan
    return [plan.window(0, number) for number in range(plan.num_windows(0))]


def test_segments_are_the_samples_read_alone(batches):
    num_packs = 0
    for window in windows(batches):
        for place, pack in enumerate(window.packs):
            seen = view(batches, window, place)
            alone = read_alone(batches, pack)
            assert [
                (part.source, part.task, part.key, part.num_tokens, part.num_tiles)
                for part in seen.segments
            ] == [(one.source, one.task, one.key, one.num_tokens, len(one.tiles)) for one in alone]
            assert seen.num_tokens == sum(one.num_tokens for one in alone)
            assert seen.num_tiles == sum(len(one.tiles) for one in alone)
            num_packs += 1
    assert num_packs > 5


def test_padding_is_what_is_left_of_the_budget(batches):
    window = windows(batches)[0]
    seen = view(batches, window, 0)
    assert seen.number == 0
    assert seen.tokens_per_pack == 256
    assert 256 - seen.num_tokens == pytest.approx(seen.padding * 256)
    assert 0 <= seen.padding < 1


def test_what_is_left_out_is_counted_by_reason(batches):
    reasons = {}
    for window in windows(batches):
        for place in range(len(window.packs)):
            for reason, count in view(batches, window, place).left_out.items():
                reasons[reason] = reasons.get(reason, 0) + count
    assert sum(reasons.values()) == 2  # the empty text and the long one
    assert any("max_tokens" in reason for reason in reasons)


def test_the_blank_sequence_is_no_segment(open_batches):
    batches = open_batches(
        sources=[source for source in open_batches().sources if source.name == "text"]
    )
    window = windows(batches)[0]
    for place in range(len(window.packs)):
        seen = view(batches, window, place)
        assert seen.has_blank
        assert {part.source for part in seen.segments} <= {"text"}
        assert seen.num_tiles == 0


def test_a_full_pack_has_no_blank(batches):
    seen = [view(batches, window, 0) for window in windows(batches)]
    assert any(not one.has_blank for one in seen)


def test_a_pack_that_cannot_be_read_says_why():
    with pytest.raises(DataError, match="the disk is gone"):
        view_pack(
            ReadPack(batch=None, failure="the disk is gone"),
            number=0,
            tokens_per_pack=10,
            planned_tokens=5,
        )


@pytest.fixture
def joined_pack():
    """A picture of three tiles, a text, and two pictures of a tile each beside each other."""
    tokenizer = train_tokenizer(["two pictures"] * 3, vocab_size=300)
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=JoinedTiles(grids=["1x1", "2x1"], tile_size=16, one_tile_in_company=True),
        chat_template=RAW,
        num_read_tokens=4,
        num_drawn_tokens=0,
        max_tokens=200,
        image_token="<image>",
    )
    picture = ReadImage(picture=Image.new("RGB", (32, 16)))
    talks = [
        Conversation(
            turns=(Turn(role="document", parts=(*pictures, Text(text="two")), learn=True),),
            source="joined",
        )
        for pictures in ((picture,), (), (picture, picture))
    ]
    samples = [processor.encode(talk) for talk in talks]
    return processor, talks, samples


def test_tiles_that_are_joined_are_counted_too(joined_pack):
    processor, _, samples = joined_pack
    batch = collate(samples, blank=BlankTile.of(processor))
    read = ReadPack(batch=batch, outcomes=())
    seen = view_pack(read, number=0, tokens_per_pack=99, planned_tokens=99)
    assert [part.num_tiles for part in seen.segments] == [3, 0, 2]
    alone = collate(samples[1:2], blank=BlankTile.of(processor))
    seen = view_pack(
        ReadPack(batch=alone, outcomes=()), number=0, tokens_per_pack=99, planned_tokens=99
    )
    assert ([part.num_tiles for part in seen.segments], seen.has_blank) == ([0], True)


def test_pictures_are_looked_at_in_their_company(joined_pack):
    processor, talks, samples = joined_pack
    found = [
        [len(picture.tiles) for picture in view_pictures(talk, sample, processor.any_resolution)]
        for talk, sample in zip(talks, samples, strict=True)
    ]
    assert found == [[3], [], [1, 1]]
