"""Train the tiny model by a recipe of plain values, on any number of ranks or in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.models.lora import LoraRecipe
from mllm_npu.models.tiny import tiny_batch, tiny_language_model, tiny_seed
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.objectives.vision import VisionObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer

CPU = torch.device("cpu")
EVERYTHING = ["*", "!image_decoder.*"]
FROZEN_ENCODER = ["*", "!vision_encoder.*", "!image_decoder.*"]
KINDS = ("reads", "draws", "text", "blank", "both")
"""Ranks get different ones in the same step."""


def batch_of(kind: str, seed: int) -> Batch:
    """A pack that reads, draws, does both, is text alone, or holds nothing at all."""
    reads, draws = kind in ("reads", "both"), kind in ("draws", "both")
    batch = tiny_batch(reads=reads, draws=draws, seed=seed)
    if kind != "blank":
        return batch
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = ("",) * len(batch.sequence_ends)
    return dataclasses.replace(
        batch,
        target_positions=nothing,
        targets=nothing,
        target_sequences=nothing,
        keys=empty,
        sources=empty,
        tasks=empty,
    )


class TinyBatches:
    """Packs of all kinds in turn, a pure function of their number.

    Args:
        mesh: whose ranks share the packs out.
        bad: numbers of packs that hold a value that is no number.
        left_out: numbers of packs that are passed over.
        kinds: in turn.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        bad: tuple[int, ...] = (),
        left_out: tuple[int, ...] = (),
        kinds: tuple[str, ...] = KINDS,
    ) -> None:
        self.mesh, self.bad, self.left_out, self.kinds = mesh, bad, left_out, kinds
        self.consumed = 0
        self.skipped: dict[str, int] = {}

    def pack(self, number: int) -> Batch:
        batch = batch_of(self.kinds[number % len(self.kinds)], number)
        keys = tuple(f"{number}-{key}" if key else "" for key in batch.keys)
        batch = dataclasses.replace(batch, keys=keys)
        if number not in self.bad:
            return batch
        positions = torch.full_like(batch.tile_positions, float("nan"))
        return dataclasses.replace(batch, tile_positions=positions)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number = self.consumed + self.mesh.data_rank
            self.consumed += self.mesh.data_size
            if number not in self.left_out:
                yield self.pack(number)

    def preview(self) -> Iterator[Batch]:
        return map(self.pack, count())

    def rehearsal(self) -> list[Batch]:
        return [self.pack(0)]

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]


def make_objective(name: str) -> Objective:
    """One of the objectives over the tiny model, by name; its values follow from the seed."""
    torch.manual_seed(0)
    model = tiny_seed(normalize=name == "cached")
    cache = FeatureCache(max_gib=0.01)
    match name:
        case "everything":
            return MultimodalObjective(model=model, trainable=EVERYTHING)
        case "cached":
            return MultimodalObjective(
                model=model, trainable=FROZEN_ENCODER, feature_cache=cache, calibration_batches=4
            )
        case "lora":
            recipe = LoraRecipe(rank=2, alpha=4.0, dropout=0.0, targets=["*.q_proj", "*.up_proj"])
            recipe.apply(recipe.part_of(model))
            return MultimodalObjective(model=model, trainable=["*lora_*", "projector.*"])
        case "contrast":
            return VisionObjective(
                model=model,
                trainable=["vision_encoder.*"],
                text="contrast",
                text_tower=tiny_language_model(),
                contrast_width=8,
            )
        case "caption":
            reading = ["vision_encoder.*", "projector.*", "language_model.*"]
            return VisionObjective(model=model, trainable=reading, text="caption")
        case "decoder":
            return DecoderObjective(model=model, feature_cache=cache)
    raise AssertionError(name)


def make_trainer(
    folder: Path,
    *,
    objective: str = "everything",
    parallel: Mapping[str, Any] | None = None,
    batches: Mapping[str, Any] | None = None,
    checkpoints: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """A trainer of the tiny model whose run lies in ``folder``.

    Args:
        folder: of the run.
        objective: see ``make_objective``.
        parallel: settings of ``Parallel``; one process without any.
        batches: settings of ``TinyBatches``.
        checkpoints: settings of ``Checkpoints``.
        options: of the trainer.
    """
    recipe = Parallel(**{"kind": "single", "timeout_seconds": 30.0, **(parallel or {})})
    mesh = recipe.start(CPU)
    placed = recipe.shape(make_objective(objective), mesh, CPU)
    placed.settle()
    settings = {"max_steps": 4, "packs_per_step": 8, "clip_grad_norm": 0.5, "ema_decay": 0.9}
    return Trainer(
        placed=placed,
        batches=TinyBatches(mesh, **(batches or {})),
        # A large epsilon: rounding of tiny gradients must not decide the sign of a step.
        optimizer=AdamW(lr=1e-3, eps=1e-3),
        schedule=Constant(),
        recorder=Recorder(folder=folder, progress=False),
        checkpoints=Checkpoints(folder=folder / "checkpoints", mesh=mesh, **(checkpoints or {})),
        **{**settings, "log_every": 1, **options},
    )


def train(folder: Path, *, resume: Any = "never", **recipe: Any) -> bool:
    """Run a recipe of ``make_trainer``; whether it came to its end."""
    return make_trainer(folder, **recipe).run(resume=resume)


def train_all(folder: Path, recipes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Run several recipes one after the other, each in a folder of its name."""
    for name, recipe in recipes.items():
        train(folder / name, **recipe)
    return list(recipes)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged, step by step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def stored(folder: Path, step: int | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint of a run, read by this process alone."""
    checkpoints = Checkpoints(folder=folder / "checkpoints")
    newest = checkpoints.latest_step() if step is None else step
    assert newest is not None
    tensors = {
        name: torch.empty(found.shape, dtype=found.dtype)
        for name, found in checkpoints.shapes(newest).items()
    }
    checkpoints.load(newest, tensors)
    return tensors
