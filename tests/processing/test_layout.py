"""Tokens and slots are collected in step."""

import torch
from PIL import Image

from mllm_npu.processing.conversation import DrawnImage, ReadImage
from mllm_npu.processing.layout import TokenLayout, slot_places

READ = ReadImage(picture=Image.new("RGB", (2, 2)))
DRAWN = DrawnImage(picture=Image.new("RGB", (2, 2)))


def test_only_learnt_tokens_have_labels():
    layout = TokenLayout()
    layout.add((5, 6), learn=False)
    layout.add((7,), learn=True)
    assert layout.ids == [5, 6, 7]
    assert layout.labels == [-100, -100, 7]


def test_a_read_picture_has_slots_behind_each_tag_and_no_labels():
    layout = TokenLayout()
    layout.add((1,), learn=True)
    layout.add_read(READ, [(30, 10, 11, 31), (20, 10, 11, 21)])
    assert layout.ids == [1, 30, 10, 11, 31, 20, 10, 11, 21]
    assert layout.read_starts == [2, 6]
    assert layout.labels == [1, *[-100] * 8]
    assert layout.pictures == [READ]


def test_a_drawn_picture_teaches_its_opening_tag():
    layout = TokenLayout()
    layout.add_drawn(DRAWN, (20, 10, 11, 12, 21))
    assert layout.labels == [20, -100, -100, -100, -100]
    assert layout.draw_starts == [1]
    assert layout.read_starts == []


def test_without_pictures_shapes_stay():
    assert slot_places([], 4).shape == (0, 4)


def test_slots_lie_side_by_side():
    places = slot_places([2, 9], 3)
    assert places.tolist() == [[2, 3, 4], [9, 10, 11]]
    assert places.dtype == torch.int64
