"""What a caching allocator takes of a device: whole segments, cut and joined again."""

from mllm_npu.plan.reserved_memory import CachingAllocator, reserved_bytes

MIB = 1 << 20


def test_small_requests_share_a_segment():
    allocator = CachingAllocator()
    for number in range(4):
        allocator.take(number, 512 << 10)
    assert allocator.reserved == 2 * MIB
    allocator.take(4, 512)
    assert allocator.reserved == 4 * MIB


def test_large_requests_take_segments_of_twenty_or_of_their_own_size():
    allocator = CachingAllocator()
    allocator.take(0, 3 * MIB)
    assert allocator.reserved == 20 * MIB
    allocator.take(1, 5 * MIB)
    assert allocator.reserved == 20 * MIB
    allocator.take(2, 31 * MIB)
    assert allocator.reserved == 52 * MIB


def test_a_block_that_is_free_again_is_used_again():
    allocator = CachingAllocator()
    allocator.take(0, 30 * MIB)
    allocator.give(0)
    allocator.take(1, 30 * MIB)
    assert allocator.reserved == 30 * MIB


def test_free_neighbours_are_joined_whatever_comes_back_first():
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)):
        allocator = CachingAllocator()
        for number in range(3):
            allocator.take(number, 6 * MIB)
        for number in order:
            allocator.give(number)
        allocator.take(3, 20 * MIB)
        assert allocator.reserved == 20 * MIB, order


def test_the_best_fit_is_taken_not_the_first():
    allocator = CachingAllocator()
    for number, size in enumerate((40 * MIB, 12 * MIB)):
        allocator.take(number, size)
    for number in range(2):
        allocator.give(number)
    allocator.take(2, 11 * MIB)
    allocator.take(3, 40 * MIB)
    assert allocator.reserved == 52 * MIB


def test_what_does_not_fit_into_a_hole_is_lost():
    """Two small holes do not make a large one."""
    requests = [(1, 16 * MIB, ""), (2, 16 * MIB, ""), (3, 16 * MIB, "")]
    requests += [(1, -16 * MIB, ""), (3, -16 * MIB, ""), (4, 32 * MIB, "")]
    assert reserved_bytes({}, requests) == 3 * 16 * MIB + 32 * MIB


def test_streams_keep_their_blocks_apart():
    requests = [(1, 16 * MIB, ""), (1, -16 * MIB, ""), (2, 16 * MIB, "exchange")]
    assert reserved_bytes({}, requests) == 32 * MIB
    assert reserved_bytes({}, [(n, size, "") for n, size, _ in requests]) == 16 * MIB


def test_what_was_there_before_counts_and_can_go():
    assert reserved_bytes({7: 16 * MIB}, [(7, -16 * MIB, ""), (8, 16 * MIB, "")]) == 16 * MIB
    assert reserved_bytes({7: 16 * MIB}, [(8, 16 * MIB, "")]) == 32 * MIB


def test_what_it_never_handed_out_is_not_taken_back():
    assert reserved_bytes({}, [(3, -512, "")]) == 0


def test_of_equal_blocks_the_first_is_used_whatever_came_back_first():
    for order in ((0, 1), (1, 0)):
        allocator = CachingAllocator()
        for number in range(2):
            allocator.take(number, 30 * MIB)
        for number in order:
            allocator.give(number)
        allocator.take(2, 30 * MIB)
        assert allocator._held[2].address == 0
