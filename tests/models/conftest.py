"""Packs of sequences for language models."""

import pytest
import torch


@pytest.fixture
def positions():
    """Place of each token in its own sequence."""

    def count(ends):
        starts = (0, *ends[:-1])
        return torch.cat(
            [torch.arange(end - start) for start, end in zip(starts, ends, strict=True)]
        )

    return count
