from dataclasses import replace

import pytest
import torch
from PIL import Image

from mllm_npu.batch import IGNORED_LABEL, Sample
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn

BLANK = BlankTile(tile_size=4, num_read_tokens=2, num_drawn_tokens=3, token_id=9, picture_size=5)


def sample(labels, *, read=(), drawn=(), key="k", source="s", first_tile=1):
    """A sample with given labels; ``read`` and ``drawn`` are first slot places of its tiles."""
    num_tiles = len(read) + len(drawn)
    shades = torch.arange(first_tile, first_tile + num_tiles, dtype=torch.uint8)
    return Sample(
        input_ids=torch.arange(100, 100 + len(labels)),
        labels=torch.tensor(labels),
        tiles=shades[:, None, None, None].expand(-1, 3, 4, 4),
        tile_positions=torch.full((num_tiles, 2), 0.25),
        read_tiles=torch.arange(len(read)),
        read_slots=torch.tensor(list(read), dtype=torch.int64)[:, None] + torch.arange(2),
        draw_tiles=torch.arange(len(read), num_tiles),
        draw_slots=torch.tensor(list(drawn), dtype=torch.int64)[:, None] + torch.arange(3),
        pictures=torch.full((len(drawn), 3, 5, 5), first_tile, dtype=torch.uint8),
        key=key,
        source=source,
        task="caption",
    )


X = IGNORED_LABEL
READING = sample([X, X, X, 7, 8], read=[1], key="reading")
DRAWING = sample([X, 5, X, X, X, X, 6], drawn=[2], key="drawing", first_tile=11)
TEXT = sample([4, 5, 6], key="text")


def test_sequences_ends_and_positions():
    batch = collate([READING, DRAWING, TEXT], blank=BLANK)
    assert batch.sequence_ends == (5, 12, 15)
    assert batch.position_ids.tolist() == [*range(5), *range(7), *range(3)]
    assert batch.input_ids.tolist() == [*range(100, 105), *range(100, 107), *range(100, 103)]
    assert batch.keys == ("reading", "drawing", "text")
    assert (batch.num_tokens, batch.num_samples, batch.num_drawn) == (15, 3, 1)


def test_targets_are_shifted_inside_their_sequence_only():
    batch = collate([READING, DRAWING, TEXT], blank=BLANK)
    # The first label of TEXT is learnt by nobody: the token before it belongs to another sequence.
    assert batch.target_positions.tolist() == [2, 3, 5, 10, 12, 13]
    assert batch.targets.tolist() == [7, 8, 5, 6, 5, 6]
    assert batch.target_sequences.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.num_targets == 6


def test_slots_and_tiles_move_with_their_sample():
    batch = collate([TEXT, DRAWING, READING, READING], blank=BLANK)
    assert batch.tiles[:, 0, 0, 0].tolist() == [11, 1, 1]
    assert batch.read_tiles.tolist() == [1, 2]
    assert batch.read_slots.tolist() == [[11, 12], [16, 17]]
    assert batch.draw_tiles.tolist() == [0]
    assert batch.draw_slots.tolist() == [[5, 6, 7]]
    assert batch.draw_sequences.tolist() == [1]
    assert batch.draw_weights.tolist() == [1.0]
    assert batch.pictures[:, 0, 0, 0].tolist() == [11]
    assert batch.tile_positions.shape == (3, 2)


@pytest.mark.parametrize(
    ("samples", "num_blank", "num_reads", "num_draws", "num_drawn"),
    [
        ([READING, DRAWING], 0, 1, 1, 1),
        ([READING], 3, 1, 1, 0),
        ([DRAWING], 2, 1, 1, 1),
        ([TEXT], 5, 1, 1, 0),
        ([], 5, 1, 1, 0),
    ],
)
def test_a_blank_sequence_stands_in_for_what_is_missing(
    samples, num_blank, num_reads, num_draws, num_drawn
):
    batch = collate(samples, blank=BLANK)
    num_real = sum(sample.num_tokens for sample in samples)
    assert batch.num_tokens == num_real + num_blank
    assert len(batch.sequence_ends) == len(samples) + bool(num_blank)
    assert len(batch.read_tiles) == len(batch.read_slots) == num_reads
    assert len(batch.draw_tiles) == len(batch.draw_slots) == len(batch.draw_weights) == num_draws
    assert batch.num_drawn == num_drawn
    assert batch.draw_weights.sum() == num_drawn
    assert len(batch.pictures) == num_draws
    assert batch.num_samples == len(samples)


def test_the_blank_sequence_is_last_without_targets_and_black():
    batch = collate([TEXT], blank=BLANK)
    assert batch.input_ids[3:].tolist() == [9] * 5
    assert batch.read_slots.tolist() == [[3, 4]]
    assert batch.draw_slots.tolist() == [[5, 6, 7]]
    assert batch.tiles.shape == (1, 3, 4, 4)
    assert not batch.tiles.any()
    assert batch.tile_positions.tolist() == [[0.5, 0.5]]
    assert batch.target_sequences.max() == 0
    assert batch.draw_sequences.tolist() == [1]
    assert (batch.keys[-1], batch.sources[-1], batch.tasks[-1]) == ("", "", "")


def test_dtypes_are_those_of_the_contract():
    for samples in ([READING, DRAWING], [TEXT], []):
        batch = collate(samples, blank=BLANK)
        for name in (
            *("input_ids", "position_ids", "target_positions", "targets", "target_sequences"),
            *("read_tiles", "read_slots", "draw_tiles", "draw_slots", "draw_sequences"),
        ):
            assert getattr(batch, name).dtype == torch.int64, name
        assert batch.tiles.dtype == batch.pictures.dtype == torch.uint8
        assert batch.tile_positions.dtype == batch.draw_weights.dtype == torch.float32


def test_without_an_image_decoder_no_pictures_travel():
    blank = BlankTile(tile_size=4, num_read_tokens=2, num_drawn_tokens=3, token_id=9)
    assert collate([], blank=blank).pictures is None


def test_real_samples_and_the_blank_of_their_processor_fit(processor):
    picture = Image.new("RGB", (33, 17), (9, 9, 9))
    drawn = Turn(role="assistant", parts=(DrawnImage(picture=picture),), learn=True)
    talks = [
        Conversation(turns=(Turn(role="user", parts=(Text(text="draw"),)), drawn), source="a"),
        Conversation(
            turns=(
                Turn(role="user", parts=(ReadImage(picture=picture), Text(text="what?"))),
                Turn(role="assistant", parts=(Text(text="seven"),), learn=True),
            ),
            source="b",
        ),
        Conversation(turns=(Turn(role="document", parts=(Text(text="x"),), learn=True),)),
    ]
    samples = [processor.encode(talk) for talk in talks]
    blank = BlankTile.of(processor)
    slots = torch.tensor(processor.image_ids.slots)
    for chosen in (samples, samples[:1], samples[1:2], samples[2:]):
        batch = collate(chosen, blank=blank)
        real_draws = batch.draw_slots[batch.draw_weights > 0]
        assert (batch.input_ids[real_draws] == slots[:3]).all()
        assert int(batch.read_tiles.max()) < len(batch.tiles)
        assert batch.read_slots.max() < batch.num_tokens
        ends = torch.tensor(batch.sequence_ends)
        sequence_of = torch.bucketize(batch.target_positions, ends, right=True)
        assert (sequence_of == batch.target_sequences).all()
        assert (batch.input_ids[batch.target_positions + 1] == batch.targets).all()


def test_a_model_that_only_reads_gets_no_stand_in_for_drawings():
    blank = BlankTile(tile_size=4, num_read_tokens=2, num_drawn_tokens=0, token_id=9)
    narrow = replace(READING, draw_slots=torch.empty(0, 0, dtype=torch.int64))
    batch = collate([narrow], blank=blank)
    assert batch.sequence_ends == (READING.num_tokens,)
    assert batch.draw_tiles.numel() == batch.draw_weights.numel() == batch.num_drawn == 0
    empty = collate([], blank=blank)
    assert empty.sequence_ends == (2,)
    assert empty.read_slots.tolist() == [[0, 1]]


def joined(sources, weights=None, *, start=1, num_tiles=1, length=12):
    """A sample whose tiles of two tokens each are joined."""
    plain = sample([X] * length)
    return replace(
        plain,
        tiles=torch.ones(num_tiles, 3, 4, 4, dtype=torch.uint8),
        tile_positions=torch.full((num_tiles, 2), 0.5),
        read_tiles=torch.arange(num_tiles),
        read_slots=torch.empty(0, 2, dtype=torch.int64),
        grid_slots=torch.arange(start, start + len(sources)),
        grid_sources=torch.tensor(sources),
        grid_weights=None if weights is None else torch.tensor(weights),
    )


JOINING = replace(BLANK, num_drawn_tokens=0, joins=True)


def test_joined_tokens_move_with_their_tiles_and_newlines_stay():
    first, second = joined([[1], [2], [0]]), joined([[3], [0], [4]], num_tiles=2, start=4)
    batch = collate([first, second], blank=JOINING)
    assert batch.grid_slots.tolist() == [1, 2, 3, 16, 17, 18]
    assert batch.grid_sources.tolist() == [[1], [2], [0], [5], [0], [6]]
    assert batch.grid_weights is None
    assert batch.read_tiles.tolist() == [0, 1, 2]
    assert batch.read_slots.shape == (0, 2)
    assert batch.read_blocks == ()


def test_a_shrunk_picture_beside_another_gives_all_tokens_weights():
    shrunk = joined([[1, 2, 0, 0], [0, 0, 0, 0]], [[0.25, 0.75, 0, 0], [1.0, 0, 0, 0]])
    batch = collate([joined([[2], [0]]), sample([X, X]), shrunk], blank=JOINING)
    assert batch.grid_sources.tolist() == [[2, 0, 0, 0], [0] * 4, [3, 4, 0, 0], [0] * 4]
    assert batch.grid_weights.tolist() == [[1, 0, 0, 0]] * 2 + [[0.25, 0.75, 0, 0], [1, 0, 0, 0]]
    assert batch.grid_slots.tolist() == [1, 2, 15, 16]


def test_a_text_only_pack_reads_a_blank_tile_and_a_newline():
    batch = collate([TEXT], blank=JOINING)
    assert batch.sequence_ends == (3, 6)
    assert batch.grid_slots.tolist() == [3, 4, 5]
    assert batch.grid_sources.tolist() == [[1], [2], [0]]
    assert batch.read_tiles.tolist() == [0]
    assert batch.read_slots.shape == (0, 2)
    assert collate([TEXT], blank=BLANK).grid_slots is None
