"""Tiles lie on their pictures without gap or overlap, and give the picture back."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.inspect.picture_view import tile_pictures, view_pictures
from mllm_npu.errors import DataError
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn

SIZES = ((16, 16), (40, 16), (16, 40), (100, 17), (30, 31))


@pytest.fixture(params=[True, False], ids=["repeat", "single"])
def processor(request, tokenizer, make_processor):
    grids = ["1x1", "1x2", "2x1", "3x1", "2x2", "6x1"]
    resolution = AnyResolution(grids=grids, tile_size=16, repeat_single_tile=request.param)
    return make_processor(tokenizer, any_resolution=resolution, max_tokens=1000)


def paint(width, height):
    across = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, axis=0)
    down = np.linspace(0, 255, height, dtype=np.uint8)[:, None].repeat(width, axis=1)
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1))


def make_talk():
    """Pictures of all sizes, the last but one drawn."""
    parts = [ReadImage(picture=paint(*size)) for size in SIZES]
    parts.insert(-1, DrawnImage(picture=paint(30, 20)))
    return Conversation(
        turns=(Turn(role="document", parts=(*parts, Text(text="seven")), learn=True),)
    )


def look(processor):
    talk = make_talk()
    sample = processor.encode(talk)
    return view_pictures(talk, sample, processor.any_resolution), sample


def test_every_tile_belongs_to_one_picture(processor):
    pictures, sample = look(processor)
    numbers = [tile.number for picture in pictures for tile in picture.tiles]
    assert numbers == list(range(len(sample.tiles)))


def test_read_and_drawn_are_told_apart(processor):
    pictures, sample = look(processor)
    drawn = [tile.number for picture in pictures if picture.is_drawn for tile in picture.tiles]
    assert drawn == sample.draw_tiles.tolist()
    assert [picture.is_drawn for picture in pictures] == [False] * 4 + [True, False]


def test_sizes_are_those_of_the_pictures(processor):
    pictures, _ = look(processor)
    read = [(picture.width, picture.height) for picture in pictures if not picture.is_drawn]
    assert read == list(SIZES)


def test_tiles_cover_the_picture_without_overlap(processor):
    for picture in look(processor)[0]:
        grid = [tile for tile in picture.tiles if not tile.is_whole]
        if not grid:
            continue
        fine = 60  # divisible by all numbers of columns and rows
        covered = np.zeros((fine, fine), dtype=int)
        for tile in grid:
            left, top = round(tile.left * fine), round(tile.top * fine)
            right, bottom = left + round(tile.width * fine), top + round(tile.height * fine)
            covered[top:bottom, left:right] += 1
        assert (covered == 1).all(), picture.summary
        assert len(grid) == picture.columns * picture.rows


def test_the_whole_picture_comes_last(processor):
    for picture in look(processor)[0]:
        assert [tile.is_whole for tile in picture.tiles[:-1]] == [False] * (len(picture.tiles) - 1)
        whole = picture.tiles[-1]
        assert whole.is_whole
        assert (whole.left, whole.top, whole.width, whole.height) == (0, 0, 1, 1)


def test_grids_are_those_that_were_chosen(processor):
    for picture in look(processor)[0]:
        if not picture.is_drawn:
            chosen = processor.any_resolution.choose(picture.width, picture.height)
            assert (picture.columns, picture.rows) == chosen


def test_assembled_tiles_are_the_picture(processor):
    pictures, sample = look(processor)
    for picture in pictures:
        seen = picture.assemble(sample.tiles, longest=480)
        assert seen.width / seen.height == pytest.approx(picture.width / picture.height, rel=0.1)
        truth = np.asarray(paint(*seen.size), dtype=int)
        # Stretched to the tiles and back: soft, but nothing is swapped or turned.
        assert np.abs(np.asarray(seen, dtype=int) - truth).mean() < 14, picture.summary


def test_a_swapped_tile_would_show(processor):
    pictures, sample = look(processor)
    wide = pictures[3]
    assert wide.columns == 6
    swapped = sample.tiles.clone()
    swapped[[wide.tiles[0].number, wide.tiles[5].number]] = swapped[
        [wide.tiles[5].number, wide.tiles[0].number]
    ]
    seen = wide.assemble(swapped, longest=480)
    truth = np.asarray(paint(*seen.size), dtype=int)
    assert np.abs(np.asarray(seen, dtype=int) - truth).mean() > 30


def test_assembled_pictures_are_bounded(processor):
    pictures, sample = look(processor)
    assert pictures[3].assemble(sample.tiles, longest=50).size == (50, 8)
    large = dataclasses.replace(pictures[0], width=4000, height=2000)
    assert max(large.assemble(sample.tiles, longest=480).size) == 16


def test_another_conversation_is_refused(processor):
    sample = processor.encode(make_talk())
    talk = Conversation(
        turns=(Turn(role="document", parts=(ReadImage(picture=paint(16, 16)),), learn=True),)
    )
    with pytest.raises(DataError, match="conversation the sample was encoded from"):
        view_pictures(talk, sample, processor.any_resolution)


def test_summaries_say_what_became_of_a_picture(processor):
    pictures, _ = look(processor)
    assert pictures[3].summary == "read, 100x17, 6x1 grid and the whole, 7 tiles"
    assert pictures[4].summary == "drawn, 30x20, 1 tile"
    first = "1x1 grid and the whole, 2 tiles" if len(pictures[0].tiles) == 2 else "1 tile"
    assert pictures[0].summary == f"read, 16x16, {first}"


def test_thumbnails_are_the_tiles_in_order(processor):
    _, sample = look(processor)
    exact = tile_pictures(sample.tiles, longest=112)
    assert all(
        (np.asarray(picture) == tile.permute(1, 2, 0).numpy()).all()
        for picture, tile in zip(exact, sample.tiles, strict=True)
    )
    assert {picture.size for picture in tile_pictures(sample.tiles, longest=8)} == {(8, 8)}
