"""What a plan is asked: how much to train, what to search, how ranks fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mllm_npu.distributed.recompute import Recompute
from mllm_npu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Settings that are tried.

    Args:
        parallel: kinds; hsdp is tried with every number of replicas that keeps a replica in whole
            nodes.
        recompute: what blocks do in the backward pass.
        cpu_offload: whether parameters, gradients and optimizer stay on the host.
        sequence_size: ranks that share a sequence.
        pack_scale: factors on ``dataset.tokens_per_pack``.
        accumulate: micro-batches of a step; empty leaves the configuration's.
        each_with_each: try all combinations; otherwise one value after the other is chosen.
        most: dry runs at most; the nearest to the configuration come first.
    """

    parallel: Sequence[Literal["ddp", "fsdp2", "hsdp"]]
    recompute: Sequence[Recompute]
    cpu_offload: Sequence[bool]
    sequence_size: Sequence[int]
    pack_scale: Sequence[float]
    accumulate: Sequence[int]
    each_with_each: bool
    most: int

    def __post_init__(self) -> None:
        ranges = (self.parallel, self.recompute, self.cpu_offload, self.sequence_size)
        if not all((*ranges, self.pack_scale)) or self.most < 1:
            raise ConfigError(
                "plan.search has an empty list, or most below 1. Give every setting at least one "
                "value."
            )
        counts = (*self.sequence_size, *self.accumulate)
        if min(self.pack_scale) <= 0 or min(counts) < 1:
            raise ConfigError(
                f"plan.search has pack_scale={list(self.pack_scale)}, "
                f"sequence_size={list(self.sequence_size)}, accumulate={list(self.accumulate)}. "
                "Use factors above 0, and numbers from 1 on."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputOptions:
    """How ranks differ and fail.

    Args:
        device_spread: by how much devices differ for good, sigma of the logarithm.
        step_spread: by how much a device's steps differ, sigma of the logarithm.
        block_seconds: that training waits at least for a checkpoint, also where it is written while
            training goes on.
        ranks: numbers of ranks that are simulated beside the cluster's own.
        seed: of the simulation.
    """

    device_spread: float
    step_spread: float
    block_seconds: float
    ranks: Sequence[int]
    seed: int

    def __post_init__(self) -> None:
        if (
            min(self.device_spread, self.step_spread, self.block_seconds) < 0
            or min([1, *self.ranks]) < 1
        ):
            raise ConfigError(
                f"plan.goodput has device_spread={self.device_spread}, "
                f"step_spread={self.step_spread}, block_seconds={self.block_seconds}, "
                f"ranks={list(self.ranks)}. Use spreads and seconds from 0, ranks from 1 on."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan is asked.

    Args:
        search: settings that are tried.
        goodput: how ranks differ and fail.
        megapixels_per_second: of tiles that a worker of the loader prepares.
        train_tokens: tokens to train on; None takes the configuration's number of steps.
        sequence_tokens: tokens of a sequence in a pack; None leaves it, with the two that follow,
            to the configuration.
        tiles_per_sequence: tiles that a sequence reads.
        drawn_share: share of the sequences that draw a picture instead of reading one.
        price_per_hour: of one device, instead of the card's.
        measure: make the operations on this machine, which must have such a device, instead of
            reckoning them by its card.
        tries: dry runs at most for advice, where nothing is searched.
    """

    search: SearchOptions
    goodput: GoodputOptions
    megapixels_per_second: float
    train_tokens: float | None = None
    sequence_tokens: int | None = None
    tiles_per_sequence: int = 0
    drawn_share: float = 0.0
    price_per_hour: float | None = None
    measure: bool = False
    tries: int = 1

    def __post_init__(self) -> None:
        for name, number in (
            ("train_tokens", self.train_tokens),
            ("megapixels_per_second", self.megapixels_per_second),
        ):
            if number is not None and not number > 0:
                raise ConfigError(f"plan.{name}={number} was asked for. Use more than 0.")
        for name, number in (
            ("tiles_per_sequence", self.tiles_per_sequence),
            ("drawn_share", self.drawn_share),
            ("tries", self.tries),
            ("price_per_hour", self.price_per_hour),
        ):
            if number is not None and number < 0:
                raise ConfigError(f"plan.{name}={number} was asked for. Use 0 or more.")
