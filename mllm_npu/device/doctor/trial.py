"""A small transformer, its batch and its optimizer, which take the same steps again and again.

Shape letters: B sequences, S tokens of each, D width, H heads, K width of a head, V classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_npu.device.platform import platform_of

STEPS_PER_ROUND = 4
_SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of the transformer and its batch."""

    width: int
    blocks: int
    heads: int
    sequences: int
    tokens: int
    classes: int

    def step_flops(self) -> float:
        """What one step needs: three times the products of the forward pass."""
        rows = self.sequences * self.tokens
        block = 12 * self.width**2 + 2 * self.tokens * self.width
        return 3 * 2 * rows * (self.blocks * block + self.width * self.classes)


SIZES = {
    "cpu": Size(width=256, blocks=2, heads=4, sequences=2, tokens=64, classes=256),
    "accelerator": Size(width=2048, blocks=4, heads=16, sequences=4, tokens=1024, classes=8192),
}


class Trial:
    """A model, its batch and its optimizer, which can go back to the start."""

    def __init__(self, device: torch.device, size: Size) -> None:
        # Drawn on the host, so that every device begins from the same values.
        generator = torch.Generator().manual_seed(_SEED)
        self.device = device
        self.dtype = platform_of(device).compute_dtype
        self.model = _Transformer(size)
        with torch.no_grad():
            for part in self.model.modules():
                if isinstance(part, nn.Linear):
                    part.weight.normal_(std=part.in_features**-0.5, generator=generator)
                    part.bias.zero_()
        shape = (size.sequences, size.tokens, size.width)
        self.inputs_BSD = torch.randn(shape, generator=generator).to(device)
        labels = torch.randint(size.classes, shape[:2], generator=generator)
        self.labels_BS = labels.to(device)
        self.model.to(device)
        self.start = [parameter.detach().clone() for parameter in self.model.parameters()]

    def play_round(self) -> tuple[float, ...]:
        """The losses of a few steps from the start."""
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), self.start, strict=True):
                parameter.copy_(value)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, foreach=True)
        losses = []
        for _ in range(STEPS_PER_ROUND):
            with torch.autocast(
                self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
            ):
                logits_BSV = self.model(self.inputs_BSD)
            loss = F.cross_entropy(logits_BSV.float().flatten(0, 1), self.labels_BS.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        return tuple(torch.stack(losses).tolist())


class _Block(nn.Module):
    """Attention and a two-layer network, each behind a norm, from products that repeat exactly."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(2))
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )

    def forward(self, states_BSD: Tensor) -> Tensor:
        parts = self.qkv(self.norms[0](states_BSD)).chunk(3, dim=-1)
        query_BHSK, key_BHSK, value_BHSK = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )
        scores_BHSS = query_BHSK @ key_BHSK.transpose(-1, -2) * query_BHSK.shape[-1] ** -0.5
        mixed_BHSK = scores_BHSS.softmax(dim=-1).to(value_BHSK.dtype) @ value_BHSK
        states_BSD = states_BSD + self.out(mixed_BHSK.transpose(1, 2).flatten(2))
        return states_BSD + self.mlp(self.norms[1](states_BSD))


class _Transformer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(size) for _ in range(size.blocks)))
        self.head = nn.Linear(size.width, size.classes)

    def forward(self, inputs_BSD: Tensor) -> Tensor:
        return self.head(self.blocks(inputs_BSD))


@contextmanager
def exact_numbers() -> Iterator[None]:
    """Ask for kernels that add up in one order, where the device has them."""
    was, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was, warn_only=warned)
