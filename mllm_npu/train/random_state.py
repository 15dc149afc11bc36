"""The random number generators of a process, as tensors that a checkpoint can hold."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mllm_npu.errors import CheckpointError

PURPOSE = 0x9E3779B97F4A7C15
"""Odd constant of a mixing step (Steele et al., splitmix64)."""


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators on the host and on the accelerator, Python's and NumPy's."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "host": torch.get_rng_state(),
        "python": _to_bytes([version, list(words), gauss]),
        "numpy": _to_bytes(
            [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)]
        ),
    }
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_random(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back the states; a device of another kind than before keeps its own.

    Raises:
        CheckpointError: the states are not those of these generators.
    """
    try:
        version, words, gauss = _from_bytes(tensors["python"])
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = _from_bytes(tensors["numpy"])
        np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(tensors["host"])
        if device.type in tensors:
            torch.get_device_module(device).set_rng_state(tensors[device.type], device)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"The random states of the checkpoint cannot be put back: {error}. "
            "Resume with the versions named in its state.json."
        ) from error


def seed_pack(seed: int, number: int) -> None:
    """Seed torch for one pack, on the host and on every device.

    What a pack draws (noise, dropout) then depends on the seed of the run and on the pack alone:
    not on the rank that trains it, nor on what was drawn before.

    Args:
        seed: of the run.
        number: of the pack, counted over the whole run and all ranks.
    """
    mixed = (seed * PURPOSE + number + 1) * PURPOSE & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 31)) * PURPOSE) & 0xFFFFFFFFFFFFFFFF
    torch.manual_seed((mixed ^ (mixed >> 29)) & 0x7FFFFFFFFFFFFFFF)


def _to_bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _from_bytes(tensor: Tensor) -> Any:
    return json.loads(bytes(tensor.tolist()))
