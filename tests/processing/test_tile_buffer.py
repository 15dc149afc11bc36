"""Tiles of a pack lie end to end in one piece of memory, and are the same without it."""

import pytest
import torch

from mllm_npu.processing.tile_buffer import TileBuffer, join_tiles


def fill(tiles, shade):
    """Tiles of one shade each, and another pixel in their corner."""
    for number, tile in enumerate(tiles):
        tile.fill_(shade + number)
        tile[1, 0, -1] = 7 * (shade + number) % 256
    return tiles


@pytest.fixture
def buffer():
    return TileBuffer(capacity=6, tile_size=4)


def is_rows_of_triples(tiles):
    return tiles.permute(0, 2, 3, 1).is_contiguous()


def test_tiles_are_given_out_end_to_end(buffer):
    first, second = buffer.take(2), buffer.take(1)
    assert (first.shape, second.shape) == ((2, 3, 4, 4), (1, 3, 4, 4))
    assert first.dtype == torch.uint8
    assert is_rows_of_triples(first)
    assert second.data_ptr() == first.data_ptr() + 2 * 48
    assert buffer.used == 3


def test_blocks_that_lie_end_to_end_are_joined_without_a_copy(buffer):
    buffer.take(1)
    blocks = [fill(buffer.take(count), 10 * count) for count in (2, 1, 2)]
    joined = buffer.join(blocks)
    assert joined.data_ptr() == blocks[0].data_ptr()
    assert torch.equal(joined, torch.cat(blocks))
    assert is_rows_of_triples(joined)
    fill(blocks[1], 77)
    assert joined[2, 0, 0, 0] == 77


def test_one_block_is_itself(buffer):
    block = fill(buffer.take(2), 5)
    assert buffer.join([block]).data_ptr() == block.data_ptr()
    assert torch.equal(buffer.join([block]), block)


def test_blocks_in_another_order_or_with_a_gap_are_copied(buffer):
    blocks = [fill(buffer.take(count), 10 * count) for count in (1, 2, 3)]
    for chosen in (blocks[::-1], [blocks[0], blocks[2]], [blocks[1], blocks[0]], [blocks[0]] * 2):
        joined = buffer.join(chosen)
        assert torch.equal(joined, torch.cat(chosen))
        assert joined.data_ptr() != chosen[0].data_ptr()
        assert is_rows_of_triples(joined)


def test_tiles_given_back_are_given_out_again(buffer):
    kept = fill(buffer.take(2), 3)
    before = buffer.used
    dropped = buffer.take(3)
    buffer.used = before
    again = fill(buffer.take(1), 9)
    assert again.data_ptr() == dropped.data_ptr()
    assert torch.equal(buffer.join([kept, again]), torch.cat([kept, again]))


def test_more_tiles_than_fit_have_memory_of_their_own(buffer):
    inside = fill(buffer.take(5), 1)
    beyond = fill(buffer.take(2), 50)
    assert buffer.used == 5
    assert is_rows_of_triples(beyond)
    last = fill(buffer.take(1), 90)
    assert buffer.used == 6
    for chosen in ([inside, beyond], [beyond, last], [inside, beyond, last], [beyond], [last]):
        assert torch.equal(buffer.join(chosen), torch.cat(chosen))
    assert buffer.join([inside, last]).data_ptr() == inside.data_ptr()
    further = fill(buffer.take(1), 120)
    assert torch.equal(buffer.join([beyond, further]), torch.cat([beyond, further]))


@pytest.mark.parametrize("start", [0, 2, 7, 12])
@pytest.mark.parametrize("shift", [0, 7])
def test_memory_of_their_own_may_lie_anywhere(start, shift):
    """Before the buffer's memory or behind it, block behind block as the allocator happens to."""
    memory = torch.zeros(40 * 48, dtype=torch.uint8)

    def place(first, count, shift=0):
        begin = first * 48 + shift
        return memory[begin : begin + count * 48].view(count, 4, 4, 3)

    buffer = TileBuffer(capacity=6, tile_size=4)
    buffer._tiles_ISS3 = place(6, 6)
    fill(buffer.take(6), 30)
    blocks = [
        place(start, 2, shift).permute(0, 3, 1, 2),
        place(start + 2, 1, shift).permute(0, 3, 1, 2),
    ]
    for number, block in enumerate(blocks):
        fill(block, 100 + 10 * number)
    expected = torch.cat(blocks)
    assert torch.equal(buffer.join(blocks), expected)
    assert torch.equal(buffer.join(blocks[:1]), blocks[0])


def test_a_buffer_without_room_gives_tiles_all_the_same():
    buffer = TileBuffer(capacity=0, tile_size=3)
    blocks = [fill(buffer.take(count), 20 * count) for count in (1, 3)]
    assert buffer.used == 0
    assert torch.equal(buffer.join(blocks), torch.cat(blocks))
    assert buffer.take(0).shape == (0, 3, 3, 3)


def test_joining_keeps_pixels_and_their_order_in_memory():
    planes = fill(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 1)
    triples = fill(torch.zeros(1, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2), 8)
    joined = join_tiles([planes, triples])
    assert torch.equal(joined, torch.cat([planes, triples]))
    assert is_rows_of_triples(joined)
