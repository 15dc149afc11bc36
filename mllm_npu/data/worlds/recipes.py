"""Recipes: the worlds this package makes, and whether a folder holds a whole, current one."""

from __future__ import annotations

from pathlib import Path

from mllm_npu.data.worlds import digits, scenes
from mllm_npu.data.worlds.world import PAPER, UNFINISHED, World, load_world
from mllm_npu.errors import DataError

VERSIONS = {"digits": digits.VERSION, "scenes": scenes.VERSION}
"""Version of each world's recipe; rows of another version mean something else."""


def check_data(folder: str | Path) -> None:
    """Refuse to train on a world that is half made or of another version; own data pass.

    Raises:
        DataError: says how to make it.
    """
    if (Path(folder) / UNFINISHED).exists():
        raise DataError(
            f"The world in {folder} is not finished ({UNFINISHED} is in it). "
            f"Make it again: mllm-npu data digits --out {folder} (or data scenes)"
        )
    if (Path(folder) / PAPER).exists():
        require_world(folder)


def require_world(folder: str | Path) -> World:
    """Read the papers of a made world, and refuse what was left half made or made otherwise.

    Raises:
        DataError: there is no finished world, or one of another version; says how to make it.
    """
    world = load_world(folder)
    wanted = VERSIONS.get(world.name)
    if wanted is not None and world.version != wanted:
        raise DataError(
            f"The {world.name} world in {folder} is of version {world.version}, this package "
            f"makes version {wanted}. Make it again: mllm-npu data {world.name} --out {folder}"
        )
    return world
