"""Whole stages on packs of the tiny model, from a configuration to a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from tiny_training import TinyBatches

from mllm_npu.config import load_config
from mllm_npu.processing.processor import Processor
from mllm_npu.train.stages import train_stage

SIZES = [
    *("models.projector.num_queries=4", "models.output_projector.num_queries=4"),
    *("world_dir=null", "initialise_from=null", "objective=mllm", "objective.feature_cache=null"),
    *(
        "train.max_steps=3",
        "train.packs_per_step=4",
        "train.log_every=1",
        "train.optimizer.lr=1e-2",
    ),
    *("tracker=[jsonl]", "train.recorder.progress=false", "train.throughput.count_flops=false"),
    # Rounding of tiny gradients must not decide the sign of a step.
    *("+train.optimizer.eps=1e-3", "train.optimizer.lr=1e-2", "train.schedule.warmup_steps=1"),
    *("preflight=false", "threads=1"),
]


class ConfiguredBatches(TinyBatches):
    """The packs of ``TinyBatches``, built the way a data set is."""

    def __init__(self, *, processor: Processor, rank: int, world_size: int) -> None:
        super().__init__(SimpleNamespace(data_rank=rank, data_size=world_size))  # type: ignore[arg-type]


def train_stages(folder: Path, *, stages: dict[str, Sequence[str]]) -> list[str]:
    """Train stages by their overrides, each in a folder of its name; which of them ended."""
    done = []
    for name, overrides in stages.items():
        config = load_config("training", [*SIZES, f"run_dir={folder / name}", *overrides])
        config.dataset = {"_target_": "play_export.ConfiguredBatches"}
        done.append(train_stage(config).name)
    return done
