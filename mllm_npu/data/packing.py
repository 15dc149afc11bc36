"""Packing: share samples out among packs so that all are full and all cost the same.

A pack has two budgets: tokens of the language model and tiles of the vision encoder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllm_npu.errors import ConfigError

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

_ROUNDING = 1e-9
_FULL = 1.0 + _ROUNDING


def pack_evenly(
    tokens: Integers,
    tiles: Integers,
    *,
    tokens_per_pack: int,
    tiles_per_pack: int | None = None,
) -> list[list[int]]:
    """Group samples so that no group is over a budget, with as few groups as can be.

    The largest sample left goes to the group that is then the least full in its fuller budget. So
    every group gets samples of every size: packs mix their tasks and cost about the same in both
    budgets, which first-fit-decreasing, filling one group after the other, does not give.

    A sample that is over a budget by itself gets a group of its own: leaving it out is the caller's
    choice.

    Args:
        tokens: of each sample, int64 [n].
        tiles: of each sample, int64 [n].
        tokens_per_pack: largest sum of tokens.
        tiles_per_pack: largest sum of tiles; None for no limit. Tiles are evened out in any case.

    Returns:
        Groups of numbers of samples. Equal input gives equal output.

    Raises:
        ConfigError: if a budget is not positive.

    Source:
        Longest-processing-time rule: R. L. Graham, Bounds on multiprocessing timing anomalies,
        SIAM J. Appl. Math. 17 (1969); with two loads as in vector bin packing.
    """
    check_budgets(tokens_per_pack, tiles_per_pack)
    is_over = tokens > tokens_per_pack
    if tiles_per_pack is not None:
        is_over |= tiles > tiles_per_pack
    alone = [[int(number)] for number in np.flatnonzero(is_over)]
    fitting = np.flatnonzero(~is_over)
    if not len(fitting):
        return alone
    tokens, tiles = tokens[fitting], tiles[fitting]
    num_groups = -(-int(tokens.sum()) // tokens_per_pack)
    if tiles_per_pack is not None:
        num_groups = max(num_groups, -(-int(tiles.sum()) // tiles_per_pack))
    num_groups = max(num_groups, 1)
    groups = None
    while groups is None:
        # Tiles are measured by their even share, or by the budget where that is less.
        even = max(float(tiles.sum()) / num_groups, 1.0)
        limit = np.inf if tiles_per_pack is None else tiles_per_pack / even
        groups = _share_out(tokens / tokens_per_pack, tiles / even, num_groups, limit)
        num_groups += max(1, num_groups // 256)
    return alone + [fitting[group].tolist() for group in groups if group]


def check_budgets(tokens_per_pack: int, tiles_per_pack: int | None) -> None:
    """Refuse budgets that hold nothing.

    Raises:
        ConfigError: if one is not positive.
    """
    if tokens_per_pack < 1 or (tiles_per_pack is not None and tiles_per_pack < 1):
        raise ConfigError(
            f"tokens_per_pack={tokens_per_pack} and tiles_per_pack={tiles_per_pack} were asked "
            "for. Use 1 or more, or tiles_per_pack=null for no limit."
        )


def _share_out(
    tokens: Numbers, tiles: Numbers, num_groups: int, tile_limit: float
) -> list[list[int]] | None:
    """Groups of samples measured as shares of a pack; None if there are too few groups."""
    order = np.argsort(-np.maximum(tokens, tiles), kind="stable")
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    token_load, tile_load = np.zeros(num_groups), np.zeros(num_groups)
    for number, text, vision in zip(
        order.tolist(), tokens[order].tolist(), tiles[order].tolist(), strict=True
    ):
        fuller = np.maximum(token_load + text, tile_load + vision)
        chosen = int(fuller.argmin())
        if token_load[chosen] + text > _FULL or tile_load[chosen] + vision > tile_limit + _ROUNDING:
            has_room = (token_load + text <= _FULL) & (tile_load + vision <= tile_limit + _ROUNDING)
            if not has_room.any():
                return None
            chosen = int(np.where(has_room, fuller, np.inf).argmin())
        groups[chosen].append(number)
        token_load[chosen] += text
        tile_load[chosen] += vision
    return groups
