"""Packing: share pieces out among equal boxes so that all are full and all are alike."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from mllm_npu.errors import ConfigError


def pack_evenly(
    lengths: Sequence[int], capacity: int, *, is_last: bool = True
) -> tuple[list[list[int]], list[int]]:
    """Group numbers of pieces so that no group is longer than the capacity.

    The longest piece left goes to the emptiest group. So every group gets pieces of every length:
    packs mix their tasks and cost about the same, which first-fit-decreasing, filling one group
    after the other, does not give.

    A piece that is longer than the capacity gets a group of its own: leaving it out is the
    caller's choice.

    Args:
        lengths: length of each piece, not negative.
        capacity: largest sum of a group.
        is_last: whether all pieces must go. Otherwise only as many groups are made as can be
            filled, and what does not fit waits.

    Returns:
        Groups of indices into ``lengths``, and the indices that wait. Equal input gives equal
        output.

    Raises:
        ConfigError: if the capacity is not positive.

    Source:
        Longest-processing-time rule: R. L. Graham, Bounds on multiprocessing timing anomalies,
        SIAM J. Appl. Math. 17 (1969).
    """
    if capacity < 1:
        raise ConfigError(f"tokens_per_pack={capacity} was asked for. Use a positive number.")
    alone = [[piece] for piece, length in enumerate(lengths) if length > capacity]
    pieces = [piece for piece, length in enumerate(lengths) if length <= capacity]
    pieces.sort(key=lambda piece: -lengths[piece])
    total = sum(lengths[piece] for piece in pieces)
    num_groups = -(-total // capacity) if is_last else total // capacity
    groups, rest = _share_out(pieces, lengths, capacity, num_groups)
    while is_last and rest:
        num_groups += 1
        groups, rest = _share_out(pieces, lengths, capacity, num_groups)
    return alone + [group for group in groups if group], rest


def _share_out(
    pieces: Sequence[int], lengths: Sequence[int], capacity: int, num_groups: int
) -> tuple[list[list[int]], list[int]]:
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    emptiest = [(0, number) for number in range(num_groups)]
    rest: list[int] = []
    for piece in pieces:
        if not emptiest or emptiest[0][0] + lengths[piece] > capacity:
            rest.append(piece)
            continue
        load, number = emptiest[0]
        groups[number].append(piece)
        heapq.heapreplace(emptiest, (load + lengths[piece], number))
    return groups, rest
