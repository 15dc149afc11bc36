"""Packs of sequences for language models, and recorded vectors of the original system."""

import json

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture
def golden(shared):
    """Read one recorded file: tensors by key, and its meta data."""

    def read(name):
        folder = shared / "golden"
        meta = json.loads((folder / f"{name}.json").read_text())["meta"]
        return load_file(folder / f"{name}.safetensors"), meta

    return read


@pytest.fixture
def take():
    """Cut a prefix off the keys of recorded tensors."""

    def cut(tensors, prefix):
        return {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }

    return cut


@pytest.fixture
def positions():
    """Place of each token in its own sequence."""

    def count(ends):
        starts = (0, *ends[:-1])
        return torch.cat(
            [torch.arange(end - start) for start, end in zip(starts, ends, strict=True)]
        )

    return count
