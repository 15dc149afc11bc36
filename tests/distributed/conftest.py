"""A group of one process, or of ranks that are only said to be there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch
from pretended import pretended_ranks

from mllm_npu.distributed.mesh import Mesh


@pytest.fixture
def one_rank(monkeypatch) -> Iterator[Mesh]:
    """A mesh of this process with a group, in which every exchange is real."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    mesh = Mesh.start(torch.device("cpu"), alone=True)
    yield mesh
    mesh.close()


@pytest.fixture
def pretend() -> Iterator[Callable[..., Mesh]]:
    """Makes a mesh of many ranks of which this is one; exchanges give nothing."""
    with ExitStack() as stack:

        def make(*, rank: int = 0, world_size: int = 4, **settings: int) -> Mesh:
            stack.enter_context(pretended_ranks(rank, world_size))
            return Mesh(rank=rank, world_size=world_size, **settings)

        yield make
