"""Packing: put pieces into as few equal boxes as first-fit-decreasing finds."""

from __future__ import annotations

from collections.abc import Sequence

from mllm_npu.errors import ConfigError


def pack_first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group numbers of pieces so that no group is longer than the capacity.

    A piece that is longer than the capacity gets a group of its own: leaving it out is the
    caller's choice.

    Args:
        lengths: length of each piece, not negative.
        capacity: largest sum of a group.

    Returns:
        Groups of indices into ``lengths``; the longest pieces come first. Equal input gives equal
        output.

    Raises:
        ConfigError: if the capacity is not positive.
    """
    if capacity < 1:
        raise ConfigError(f"tokens_per_pack={capacity} was asked for. Use a positive number.")
    groups: list[list[int]] = []
    room: list[int] = []
    first_open = 0
    smallest = min(lengths, default=0)
    for piece in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[piece]
        place = next((n for n in range(first_open, len(room)) if room[n] >= length), len(room))
        if place == len(room):
            groups.append([])
            room.append(capacity)
        groups[place].append(piece)
        room[place] -= length
        while first_open < len(room) and room[first_open] < smallest:
            first_open += 1
    return groups
