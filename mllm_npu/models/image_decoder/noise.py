"""The noise a picture starts from, the same on every device and beside any other picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError


def noise_like(values: Tensor) -> Tensor:
    """Normal noise in the shape, dtype and place of other values, drawn on the host."""
    noise = torch.randn(values.shape, dtype=values.dtype, device="cpu")
    return to_device(noise, values.device)


def chosen_share(share: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """True at about a share of the places, bool of this shape, drawn on the host."""
    return to_device(torch.rand(shape, device="cpu") < share, device)


def draw_noise(shape: tuple[int, ...], generator: Generator | Sequence[Generator] | None) -> Tensor:
    """Normal noise on the host, float32.

    Args:
        shape: pictures first.
        generator: on the CPU; where there are several, each picture has its own.

    Raises:
        RequestError: another number of generators than pictures.
    """
    if generator is None or isinstance(generator, Generator):
        return torch.randn(shape, generator=generator, device="cpu")
    if len(generator) != shape[0]:
        raise RequestError(
            f"decode was given {len(generator)} generators for {shape[0]} pictures; give one per "
            "picture, or a single one."
        )
    return torch.stack([torch.randn(shape[1:], generator=one, device="cpu") for one in generator])
