"""Dry-run a configuration on a cluster: does it fit, how long does a step take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from mllm_npu.build import build_part
from mllm_npu.config import Config, load_config, plain
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import usable_cores
from mllm_npu.errors import ConfigError
from mllm_npu.part_numbers import vision_number
from mllm_npu.plan.calibration import Calibration, calibrate
from mllm_npu.plan.cluster import GIB, Cluster
from mllm_npu.plan.dry_run import trace_step
from mllm_npu.plan.fake_pack import PackSize
from mllm_npu.plan.measured_rates import MeasuredRates
from mllm_npu.plan.options import PlanOptions
from mllm_npu.plan.roofline import Rates, Roofline
from mllm_npu.plan.setting import Setting
from mllm_npu.plan.step_time import StepTime, Surroundings, main_dtype, time_step
from mllm_npu.plan.traced_step import Exchange, Operation, TracedStep

Say = Callable[[str], object]

STAND_INS = {
    "llama2": ("language_model", "llama2_13b"),
    "llama3": ("language_model", "llama3_8b"),
    "vicuna-7b-v1.5": ("language_model", "vicuna_7b"),
    "siglip-so400m-patch14-384": ("vision_encoder", "siglip_so400m_384"),
    "clip-vit-large-patch14-336": ("vision_encoder", "clip_vit_l_336"),
}
"""Shipped options of the same sizes as folders that experiments name and that may not be here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a step has room.

    Args:
        needed: bytes on the device at most, what its allocator loses included.
        limit: bytes of the device that a run can have.
        host_needed: bytes of a node's memory for what is kept there.
        host_limit: bytes of a node's memory.
    """

    needed: float
    limit: float
    host_needed: float
    host_limit: float

    @property
    def fits(self) -> bool:
        """Whether both memories have room."""
        return self.needed <= self.limit and self.host_needed <= self.host_limit

    @property
    def missing(self) -> float:
        """Bytes too many on the device; below 0 where there is room."""
        return self.needed - self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A setting that was dry-run.

    Args:
        setting: which.
        traced: what a step does and holds.
        step: how long it takes.
        fit: whether it has room.
        seconds: the dry run took.
        slowdown: factor that sharing cores has put on the step's time; 1 where none are shared.
    """

    setting: Setting
    traced: TracedStep
    step: StepTime
    fit: Fit
    seconds: float
    slowdown: float = 1.0


class Planner:
    """Looks at a configuration, and at changes of it, on a cluster.

    Args:
        overrides: as typed after ``mllm-npu plan``.
        say: is told what the person who waits should know.

    Attributes:
        config: composed.
        cluster: where the run would be.
        options: what is asked.
        setting: that the configuration has.

    Raises:
        ConfigError: an unknown setting, an impossible cluster, or settings that do not fit it.
    """

    def __init__(self, overrides: Sequence[str], *, say: Say = lambda line: None) -> None:
        self.overrides = list(overrides)
        self.say = say
        self.config = self._compose()
        self.options: PlanOptions = build_part(self.config.plan)
        with self._threads(int(self.config.cluster.node_size)):
            self.cluster: Cluster = build_part(self.config.cluster)
        self.setting = Setting.of(self.config)
        self._check(self.config)

    def look(self, setting: Setting | None = None) -> Outcome:
        """Dry-run the configuration, or a change of it.

        Raises:
            ConfigError: parts or settings that do not fit together.
        """
        if setting is None or setting == self.setting:
            return self._look(self.config)
        config = load_config("planning", [*self.overrides, *setting.overrides(self.setting)])
        self._check(config)
        return self._look(config)

    def scale(self, one: Outcome, two: Outcome, count: int) -> Outcome:
        """The outcome of any number of micro-batches, from those of one and of two."""
        setting = replace(one.setting, accumulate=count)
        config = load_config("planning", [*self.overrides, *setting.overrides(self.setting)])
        return self.judge(config, scale_micro_batches(one.traced, two.traced, count), seconds=0.0)

    def _look(self, config: Config) -> Outcome:
        begin = time.perf_counter()
        traced = trace_step(
            config,
            ranks=self.cluster.ranks,
            device=self.cluster.accelerator.kind,
            pack=self._pack(config),
        )
        return self.judge(config, traced, seconds=time.perf_counter() - begin)

    def judge(self, config: Config, traced: TracedStep, *, seconds: float) -> Outcome:
        """Time a step and see whether it has room.

        Args:
            config: of the step.
            traced: what it does and holds.
            seconds: the dry run took.
        """
        with self._threads(self.cluster.node_size):
            rates = self._rates(config, traced)
        return Outcome(
            setting=Setting.of(config),
            traced=traced,
            step=time_step(traced, rates, self._surroundings(config, traced)),
            fit=fit_of(traced, self.cluster),
            seconds=seconds,
            slowdown=rates.slowdown,
        )

    def calibration(self) -> Calibration:
        """What was measured of this machine, with as many threads as each process would have."""
        ranks = self.cluster.ranks if self.cluster.is_here else 1
        with self._threads(self.cluster.node_size):
            return calibrate(pick_device(self.cluster.accelerator.kind), ranks=ranks)

    def _compose(self) -> Config:
        """The configuration; a folder of sizes that is not here is stood in for."""
        for _ in STAND_INS:
            try:
                return load_config("planning", self.overrides)
            except ConfigError as error:
                found = _stand_in(str(error))
                if found is None:
                    raise
                folder, part, option = found
                self.overrides += [f"models/{part}={option}", f"models.{part}.path=null"]
                self.say(f"{folder} is not here: planned with the sizes of models/{part}={option}")
        return load_config("planning", self.overrides)

    def _check(self, config: Config) -> None:
        self.cluster.check_ranks(
            kind=config.parallel.kind,
            replicas=config.parallel.replicas,
            sequence_size=config.parallel.sequence_size,
        )

    def _pack(self, config: Config) -> PackSize | None:
        asked = self.options
        if asked.sequence_tokens is None:
            return None
        return PackSize(
            tokens=config.dataset.get("tokens_per_pack") or asked.sequence_tokens,
            sequence_tokens=asked.sequence_tokens,
            tiles=asked.tiles_per_sequence,
            drawn_share=asked.drawn_share,
        )

    def _rates(self, config: Config, traced: TracedStep) -> Rates:
        stride = self.cluster.ranks // config.parallel.replicas
        here = self.cluster.is_here or self.options.measure
        if not here:
            return Roofline(cluster=self.cluster, stride=stride)
        return MeasuredRates(
            traced=traced,
            calibration=self.calibration(),
            device=pick_device(self.cluster.accelerator.kind),
            cluster=self.cluster,
            stride=stride,
        )

    def _surroundings(self, config: Config, traced: TracedStep) -> Surroundings:
        device, workers = self.cluster.accelerator, config.dataset.get("num_workers") or 0
        pixels = vision_number("tile_size", plain(config.models.vision_encoder)) ** 2
        return Surroundings(
            peak_flops=device.peak_flops(main_dtype(traced)),
            host_link=device.host_link_gb * 1e9,
            host_memory=self.cluster.host_bandwidth_gb * 1e9 / self.cluster.node_size,
            tile_rate=self.options.megapixels_per_second * 1e6 / pixels * max(1, workers),
            loads_ahead=workers > 0,
        )

    @contextmanager
    def _threads(self, processes: int) -> Iterator[None]:
        """As many threads of torch as each of some processes would have, while this is open."""
        asked, before = self.config.threads, torch.get_num_threads()
        shared = max(1, usable_cores() // max(1, processes))
        torch.set_num_threads(asked if isinstance(asked, int) else shared)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def fit_of(traced: TracedStep, cluster: Cluster) -> Fit:
    """Compare what a step holds with what a device and a node have."""
    return Fit(
        needed=traced.memory.peak + traced.memory.margin,
        limit=cluster.accelerator.usable_bytes,
        host_needed=traced.host_bytes * cluster.node_size,
        host_limit=cluster.host_memory_gib * GIB,
    )


def scale_micro_batches(one: TracedStep, two: TracedStep, count: int) -> TracedStep:
    """A step of any number of micro-batches, exactly, from the steps of one and of two.

    Every micro-batch after the first does what the second does, so calls grow in a straight line;
    memory is that of the second from then on.

    Args:
        one: of one micro-batch.
        two: the same with two.
        count: of micro-batches.
    """
    if count == 1:
        return one
    everything: tuple[Operation | Exchange, ...] = (*one.operations, *one.exchanges)
    sooner = {_key(entry): entry.calls for entry in everything}

    def calls(entry: Operation | Exchange) -> int:
        first = sooner.get(_key(entry), 0)
        return first + (count - 1) * (entry.calls - first)

    return replace(
        two,
        operations=tuple(replace(entry, calls=calls(entry)) for entry in two.operations),
        exchanges=tuple(replace(entry, calls=calls(entry)) for entry in two.exchanges),
        tokens=one.tokens + (count - 1) * (two.tokens - one.tokens),
        tiles=one.tiles + (count - 1) * (two.tiles - one.tiles),
        micro_batches=count,
        model_flops=one.model_flops + (count - 1) * (two.model_flops - one.model_flops),
    )


def _key(entry: Operation | Exchange) -> Operation | Exchange:
    return replace(entry, calls=0)


def _stand_in(message: str) -> tuple[str, str, str] | None:
    """Folder, part and option where an error says that a known folder is not here."""
    for folder, (part, option) in STAND_INS.items():
        if f"{folder}/config.json was asked for" in message:
            return folder, part, option
    return None
