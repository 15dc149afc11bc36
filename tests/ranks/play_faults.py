"""Train on data of which some packs are bad, and say what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from play_checkpoints import digest
from tiny_training import make_trainer

from mllm_npu.errors import TrainingError
from mllm_npu.train.faults import FaultPolicy

SHORT = {"packs_per_step": 2, "max_steps": 6, "checkpoint_every": 2, "objective": "lora"}


def train_on_bad_packs(folder: Path, *, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Run recipes with a policy on faults each, one after the other."""
    return {name: _train(folder / name, **recipe) for name, recipe in runs.items()}


def _train(
    folder: Path, *, faults: Mapping[str, Any], resume: Any = "never", **recipe: Any
) -> dict[str, Any]:
    recipe = SHORT | recipe
    recipe["batches"] = {"kinds": ("both",), **recipe.get("batches", {})}
    trainer = make_trainer(folder, faults=FaultPolicy(**faults), **recipe)
    finished, error = False, ""
    try:
        finished = trainer.run(resume=resume)
    except TrainingError as told:
        error = str(told)
        # What the end of a process would wait for as well.
        trainer.checkpoints.wait()
    return {
        "finished": finished,
        "error": error,
        "step": trainer.step,
        "counts": {name: count for name, count in trainer.faults.counts.items() if count},
        "lr_factor": trainer.faults.lr_factor,
        "packs": trainer.batches.state_dict()["consumed"],
        "weights": {name: digest(p) for name, p in trainer.update.parameters.items()},
        "newest": trainer.checkpoints.latest_step(),
    }
