"""The random number generators of a process, as plain values and tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mllm_npu.errors import CheckpointError


def random_values() -> dict[str, Any]:
    """States of Python's and NumPy's global generators, ready for JSON."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            str(name),
            [int(key) for key in keys],
            int(position),
            int(has_gauss),
            float(cached),
        ],
    }


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators, on the host and on the accelerator."""
    states = {"host": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_random(
    values: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device
) -> None:
    """Put back the states; a device of another kind than before keeps its own.

    Raises:
        CheckpointError: the states are not those of these generators.
    """
    try:
        version, words, gauss = values["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = values["numpy"]
        np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(tensors["host"])
        if device.type in tensors:
            torch.get_device_module(device).set_rng_state(tensors[device.type], device)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"The random states of the checkpoint cannot be put back: {error}. "
            "Resume with the versions named in its state.json."
        ) from error
