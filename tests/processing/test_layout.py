"""Tokens and slots are collected in step."""

import torch
from PIL import Image

from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Turn
from mllm_npu.processing.layout import TokenLayout, slot_places

READ = ReadImage(picture=Image.new("RGB", (2, 2)))
DRAWN = DrawnImage(picture=Image.new("RGB", (2, 2)))
TALK = Conversation(turns=(Turn(role="document", parts=(READ, DRAWN)),))


def test_only_learnt_tokens_have_labels():
    layout = TokenLayout(conversation=TALK)
    layout.add((5, 6), learn=False)
    layout.add((7,), learn=True)
    assert layout.ids == [5, 6, 7]
    assert layout.labels == [-100, -100, 7]


def test_a_read_picture_has_slots_behind_each_tag_and_no_labels():
    layout = TokenLayout(conversation=TALK)
    layout.add((1,), learn=True)
    layout.add_read(READ, [(30, 10, 11, 31), (20, 10, 11, 21)])
    assert layout.ids == [1, 30, 10, 11, 31, 20, 10, 11, 21]
    assert layout.read_starts == [2, 6]
    assert layout.labels == [1, *[-100] * 8]
    assert layout.pictures == [READ]


def test_a_drawn_picture_teaches_its_opening_tag():
    layout = TokenLayout(conversation=TALK)
    layout.add_drawn(DRAWN, (20, 10, 11, 12, 21))
    assert layout.labels == [20, -100, -100, -100, -100]
    assert layout.draw_starts == [1]
    assert layout.read_starts == []


def test_without_pictures_shapes_stay():
    for width in (4, 0, 4, 6):
        places = slot_places([], width)
        assert (places.shape, places.dtype) == ((0, width), torch.int64)


def test_slots_lie_side_by_side():
    places = slot_places([2, 9], 3)
    assert places.tolist() == [[2, 3, 4], [9, 10, 11]]
    assert places.dtype == torch.int64


def test_places_of_one_sample_are_not_those_of_another():
    first = slot_places([2], 3)
    first += 100
    assert slot_places([2], 3).tolist() == [[2, 3, 4]]
    assert slot_places([0, 7], 3).tolist() == [[0, 1, 2], [7, 8, 9]]


def test_pieces_of_any_kind_follow_each_other():
    layout = TokenLayout(conversation=TALK)
    layout.add([1], learn=False)
    layout.add_drawn(DRAWN, (20, 10, 11, 21))
    layout.add((), learn=True)
    layout.add_read(READ, [(20, 10, 21)])
    layout.add([9, 9], learn=True)
    assert layout.ids == [1, 20, 10, 11, 21, 20, 10, 21, 9, 9]
    assert layout.labels == [-100, 20, *[-100] * 6, 9, 9]
    assert (layout.draw_starts, layout.read_starts) == ([2], [6])
    assert layout.pictures == [DRAWN, READ]
    assert layout.num_tokens == len(layout.ids) == len(layout.labels)
    assert layout.conversation is TALK


def test_tiles_are_counted_by_the_blocks_that_hold_them():
    layout = TokenLayout(conversation=TALK)
    assert (layout.num_tokens, layout.num_tiles) == (0, 0)
    layout.add_read(READ, [(30, 10, 31)] * 3 + [(20, 10, 21)])
    layout.add([5], learn=True)
    layout.add_drawn(DRAWN, (20, 10, 11, 21))
    assert (layout.num_tokens, layout.num_tiles) == (4 * 3 + 1 + 4, 4 + 1)


def test_blocks_without_tags_begin_with_their_slots():
    layout = TokenLayout(conversation=TALK)
    layout.add([1], learn=False)
    layout.add_read(READ, [(10, 10)] * 2, num_before=0)
    assert layout.read_starts == [1, 3]


def test_joined_tiles_are_one_run_of_tokens():
    layout = TokenLayout(conversation=TALK)
    layout.add_labelled([1, 2], [-100, 2])
    layout.add_joined(READ, [10] * 7, 3)
    assert (layout.ids, layout.labels) == ([1, 2, *[10] * 7], [-100, 2, *[-100] * 7])
    assert (layout.grid_starts, layout.num_joined, layout.num_tiles) == ([2], 3, 3)
    assert layout.read_starts == []
