"""What each command's configuration holds: the types of the root files in ``configs``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mllm_npu.arguments import Part


@dataclass(kw_only=True)
class TrainRoot:
    """Everything ``mllm-npu train`` needs; ``configs/training.yaml`` fills it.

    Args:
        name: of the run.
        stage: of the stage inside the run.
        stages: experiments to run one after the other instead of this one.
        output_dir: folder of all runs.
        run_dir: folder of this stage.
        world_dir: folder of the data set made on this machine; null where the shards are named.
        seed: of weights, data order and noise.
        device: auto, cpu or an accelerator's name.
        threads: auto, or a number of CPU threads.
        initialise_from: model folder whose weights the stage starts with, or files and folders
            that hold them between them, ``PATH@PART`` for one part alone;
            ``models.pretrained_model_name_path`` comes before it.
        fresh: parts of the model by name that start at random where those weights lack them.
        resume: what to do where the folder holds a run already: ``auto`` goes on from its newest
            checkpoint, ``never`` refuses, a number goes on from the checkpoint of that step.
        profile: write a trace of a few steps into the folder.
        preflight: try the largest pack before the run starts.
        tokenizer, processor, models, lora, dataset, objective, parallel, train, generation: parts
            with a ``_target_``.
        validation: what is measured now and then while the model trains, by any name.
    """

    name: str | int
    stage: str | int = "single"
    stages: list[str] = field(default_factory=list)
    output_dir: str = "runs"
    run_dir: str
    world_dir: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    initialise_from: str | list[str] | None = None
    fresh: list[str] = field(default_factory=list)
    resume: Literal["auto", "never"] | int = "auto"
    profile: bool = False
    preflight: bool = True
    tokenizer: Part
    processor: Part
    models: Part
    lora: Part | None = None
    dataset: Part
    objective: Part
    parallel: Part
    train: Part
    validation: dict[str, Part | None] = field(default_factory=dict)
    generation: Part


@dataclass(kw_only=True)
class PlanRoot(TrainRoot):
    """What ``mllm-npu plan`` looks ahead at; ``configs/planning.yaml`` fills it.

    Args:
        cluster: where the run would be.
        plan: what is asked about it.
    """

    cluster: Part
    plan: Part


@dataclass(kw_only=True)
class ModelRoot:
    """What a model folder's ``model.yaml`` says: enough to answer and draw.

    Args:
        weights: files and folders that hold the values between them, relative to the model folder;
            null: the folder itself.
    """

    name: str | int
    tokenizer: Part
    processor: Part
    models: Part
    lora: Part | None = None
    generation: Part
    world_dir: str | None = None
    weights: list[str] | None = None


@dataclass(kw_only=True)
class EvaluationRoot:
    """What ``mllm-npu evaluate`` asks; ``configs/evaluation.yaml`` fills it.

    Args:
        data: folder of the published files of benchmarks.
        task: benchmarks by name.
        generation: how replies are made; null leaves it to the model folder.
    """

    data: str
    task: dict[str, Part | None] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)


ROOTS: Mapping[str, type[TrainRoot] | type[ModelRoot] | type[EvaluationRoot]] = {
    "training": TrainRoot,
    "planning": PlanRoot,
    "model": ModelRoot,
    "evaluation": EvaluationRoot,
}
