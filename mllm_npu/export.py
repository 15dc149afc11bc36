"""Make a model folder of a checkpoint, on one process, whatever number of ranks has written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mllm_npu.build import build_part, compose_model
from mllm_npu.composition import StartingValues, first_weights
from mllm_npu.config import Config, read_stage
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.fit import named_tensors
from mllm_npu.errors import CheckpointError
from mllm_npu.model_folder import save_model_folder
from mllm_npu.models.lora import plain_name
from mllm_npu.models.weights import fill_named

_MODEL, _AVERAGE = "objective/model.", "ema/"


def export_stage(folder: Path, out: Path, *, step: int | None = None, averaged: bool = True) -> int:
    """Write the model of a stage's checkpoint as one folder of safetensors; updates are folded in.

    Args:
        folder: of the stage, with ``config.yaml`` and ``checkpoints/``.
        out: model folder to write.
        step: of the checkpoint; None takes the newest.
        averaged: take the averaged weights where the run keeps them.

    Returns:
        The step that was exported.

    Raises:
        ConfigError: it is no folder of a stage.
        CheckpointError: there is no such checkpoint, or it lacks values of the model.
        WeightsError: the folder cannot be written.
    """
    config = read_stage(folder / "config.yaml")
    checkpoints = Checkpoints(folder=folder / "checkpoints")
    chosen = checkpoints.latest_step() if step is None else step
    if chosen is None:
        raise CheckpointError(
            f"A checkpoint was asked for in {checkpoints.folder}; there is none. Train the stage "
            "until it has written one."
        )
    model = _compose_hollow(config)
    stored = checkpoints.shapes(chosen)
    given = {plain_name(name) for name in named_tensors(model) if _MODEL + name in stored}
    if len(given) < len(named_tensors(model)):
        # A checkpoint leaves out what the run never changed where it was told to.
        values = StartingValues(config, weights=first_weights(config), fresh=config.fresh)
        values.fill(model, given=given)

    def read(name: str, slot: Tensor) -> Tensor | None:
        average = _AVERAGE + name
        key = average if averaged and average in stored else _MODEL + name
        if key not in stored:
            return None
        value = torch.empty(stored[key].shape, dtype=stored[key].dtype)
        checkpoints.load(chosen, {key: value})
        return value

    fill_named(model, read)
    hollow = [name for name, slot in named_tensors(model).items() if slot.is_meta]
    if hollow:
        raise CheckpointError(
            f"The checkpoint of step {chosen} lacks {len(hollow)} values of the model: "
            f"{hollow[:4]}. Export it with the configuration it was written with."
        )
    save_model_folder(model.eval(), config, out)
    return chosen


def _compose_hollow(config: Config) -> nn.Module:
    with torch.device("meta"):
        model = compose_model(StartingValues(config, weights=["a checkpoint"]))
        if config.lora is not None:
            recipe: Any = build_part(config.lora)
            recipe.apply(recipe.part_of(model))
    return model
