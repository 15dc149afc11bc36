"""A view says of a sample what the sample is."""

from random import Random

import pytest

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.data.inspect.sample_view import view_sample
from mllm_npu.errors import DataError, SkipSample


def view_all(batches, picks, cutter):
    """Every sample that can be read, with its view."""
    pairs = []
    for pick in picks:
        source = batches.sources[pick.source]
        try:
            sample = batches.reader.read(pick)
            talk = source.conversation(pick.sample, Random(0), pick.form)
        except SkipSample:
            continue
        view = view_sample(
            sample,
            talk,
            pick=pick,
            shard=source.where(pick.sample),
            cutter=cutter,
            any_resolution=batches.reader.processor.any_resolution,
        )
        pairs.append((sample, view))
    return pairs


@pytest.fixture(scope="module")
def pairs(batches, picks, cutter):
    return view_all(batches, picks, cutter)


def test_counts_are_those_of_the_sample(pairs):
    assert len(pairs) > 40
    for sample, view in pairs:
        assert view.num_tokens == sample.num_tokens
        assert view.num_targets == int((sample.labels[1:] != IGNORED_LABEL).sum())
        assert view.num_tiles == len(sample.tiles)
        assert view.num_drawn == sample.draw_tiles.numel()


def test_a_view_says_where_the_sample_comes_from(pairs, batches):
    names = set()
    for sample, view in pairs:
        assert (view.source, view.task, view.key) == (sample.source, sample.task, sample.key)
        source = batches.sources[view.pick.source]
        assert source.name == view.source
        assert source.row(view.pick.sample).key == view.key
        assert view.shard == source.where(view.pick.sample)
        names.add(view.source)
    assert names == {"caption", "chat", "text"}


def test_pixels_are_the_sample_s(pairs):
    for sample, view in pairs:
        assert view.tiles is sample.tiles
        assert view.targets is sample.pictures
        assert view.conditions is None


def test_every_tile_of_a_piece_is_on_a_picture(pairs):
    for _, view in pairs:
        seen = {tile.number: picture for picture in view.pictures for tile in picture.tiles}
        named = [piece for piece in view.pieces if piece.tile is not None]
        assert sorted(piece.tile for piece in named) == sorted(seen)
        for piece in named:
            assert seen[piece.tile].is_drawn == (piece.kind == "drawn")


def test_a_sample_of_another_conversation_is_refused(pairs, batches, cutter):
    chat = next(pair for pair in pairs if pair[1].source == "chat")
    text = next(view for _, view in pairs if view.source == "text")
    talk = batches.sources[text.pick.source].conversation(text.pick.sample, Random(0), 0)
    with pytest.raises(DataError, match="tiles was given"):
        view_sample(
            chat[0],
            talk,
            pick=text.pick,
            shard="",
            cutter=cutter,
            any_resolution=batches.reader.processor.any_resolution,
        )
