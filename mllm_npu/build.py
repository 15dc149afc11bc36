"""Turn configurations into objects: the one place that joins the floors and instantiates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate

from mllm_npu.arguments import TARGET, argument_names, check_arguments
from mllm_npu.composition import StartingValues, first_weights
from mllm_npu.config import Config, plain, to_yaml
from mllm_npu.data.worlds.recipes import VERSIONS, check_data
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import ThreadWatch, tune_process
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError, MllmNpuError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_fit import check_fit
from mllm_npu.models.drawing import Detokenizer
from mllm_npu.models.lora_values import initialise_adapters
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.processing.processor import Processor

Say = Callable[[str], None]
"""Takes a line for the person who waits."""


def build_part(node: Any, **parts: Any) -> Any:
    """Build one ``_target_`` with the parts that are objects already.

    Raises:
        ConfigError: the constructor refused what it was given; a package error passes as it is.
    """
    if node is None:
        raise ConfigError(
            "a part of the model or the run is null and is needed. See: mllm-npu config"
        )
    if any(name in node for name in parts):
        # What is built already is not built once more, without what it needs.
        node = {key: value for key, value in plain(node).items() if key not in parts}
    try:
        factory = instantiate(node, _convert_="all", _partial_=True)
        return factory(**parts)
    except HydraException as error:
        raise _own_error(error) from error
    except TypeError as error:
        raise ConfigError(
            f"{node.get('_target_')} cannot be built: {error}. See: mllm-npu config"
        ) from error


def build_model(
    config: Config,
    weights: Sequence[str | Path] = (),
    fresh: Sequence[str] = (),
    *,
    say: Say = lambda _: None,
) -> GeneralizedMultimodalModel | Detokenizer:
    """Compose the model on the default device; ``with torch.device("meta")`` takes no memory.

    Args:
        config: with the group ``models``.
        weights: files or folders that hold all its values between them. The model is then composed
            without memory and takes the values as they are read.
        fresh: parts by name that start at random where the weights lack them.
        say: is told in one line what became of the weights.

    Raises:
        ConfigError: a part is missing or does not fit, or it is no multimodal model.
        WeightsError: the weights do not fit.
    """
    values = StartingValues(config, weights=weights, fresh=fresh)
    model = compose_model(values)
    if torch.get_default_device().type != "meta":
        values.fill(model, say=say)
    return model


def compose_model(values: StartingValues) -> GeneralizedMultimodalModel | Detokenizer:
    """The model whose parts have no memory yet where their values are to come.

    Raises:
        ConfigError: a part is missing or does not fit, or it is no multimodal model.
    """
    model = values.compose(build_part)
    if not isinstance(model, GeneralizedMultimodalModel | Detokenizer):
        raise ConfigError(
            f"models._target_ gives a {type(model).__name__}; "
            "give GeneralizedMultimodalModel, SEED, Detokenizer or a class that extends one of "
            "them."
        )
    return model


def build_processor(config: Config) -> Processor:
    """Tokenizer, any-resolution and chat frame: one object for training, evaluation, serving."""
    return build_part(config.processor, tokenizer=build_part(config.tokenizer))


def build_trainer(config: Config, *, say: Say = lambda _: None) -> Any:
    """Everything a training stage needs, built in the order a run needs it.

    Args:
        config: of a stage.
        say: is told in one line what became of the weights it starts from.

    Returns:
        The object of ``train._target_``: a Trainer, unless the configuration says otherwise.

    Raises:
        MllmNpuError: whatever part cannot be built says why.
    """
    begin = time.perf_counter()
    require_world(config)
    build_part(config.generation)  # used after training only, and must not fail then
    tune_process(config.threads)
    device = pick_device(config.device)
    parallel: Parallel = build_part(config.parallel)
    mesh = parallel.start(device)
    torch.manual_seed(config.seed)
    processor = build_processor(config)
    values = StartingValues(config, weights=first_weights(config), fresh=config.fresh)
    objective = build_objective(config, values, processor)
    throughput = build_part(
        config.train.throughput,
        objective=objective,
        device=device,
        compute_dtype=parallel.compute_dtype_on(device),
        recompute=parallel.recompute,
        num_ranks=mesh.world_size,
        copies=mesh.sequence_size,
        tokens_per_pack=config.dataset.get("tokens_per_pack"),
        setup_seconds=time.perf_counter() - begin,
    )
    placed = place_objective(objective, config, values, parallel, mesh, say=say)
    ranks = {"rank": mesh.data_rank, "world_size": mesh.data_size}
    return build_part(
        config.train,
        placed=placed,
        batches=build_part(config.dataset, processor=processor, **ranks),
        checkpoints=build_part(config.train.checkpoints, mesh=mesh, config=to_yaml(config)),
        recorder=build_part(config.train.recorder, config=to_yaml(config)),
        probes={
            str(name): build_probe(node, processor=processor, **ranks)
            for name, node in config.validation.items()
            if node is not None
        },
        throughput=throughput,
        memory_fit=build_part(config.train.memory_fit, device=device) if config.preflight else None,
        profile=build_part(config.train.profile, rank=mesh.rank) if config.profile else None,
        thread_watch=ThreadWatch(config.threads),
        seed=config.seed,
    )


def place_objective(
    objective: Any,
    config: Config,
    values: StartingValues,
    parallel: Parallel,
    mesh: Mesh,
    *,
    say: Say = lambda _: None,
) -> Placed:
    """Spread an objective over the ranks, and give its parameters their values there.

    Args:
        objective: as it was built, still without memory where weights are to come.
        config: of a stage.
        values: its starting weights.
        parallel: how it is spread.
        mesh: the ranks.
        say: is told in one line what became of the weights.
    """
    placed = parallel.shape(objective, mesh, pick_device(config.device))
    values.fill(objective.model, say=say, device=placed.rows_device)
    if config.lora is not None:
        initialise_adapters(objective.model, config.seed)
    placed.settle()
    return placed


def build_objective(config: Config, values: StartingValues, processor: Processor | None) -> Any:
    """Compose the model, put low-rank updates into it, and say what is trained.

    Values that are read later are not there yet.

    Args:
        config: of a stage.
        values: its starting weights.
        processor: what feeds the model; None where no data will be seen.

    Raises:
        ConfigError: parts that do not fit.
    """
    model = compose_model(values)
    if processor is not None:
        check_fit(model, processor)
    if config.lora is not None:
        recipe = build_part(config.lora)
        recipe.apply(recipe.part_of(model))
    return build_part(config.objective, model=model)


def build_probe(node: Config, **given: Any) -> Any:
    """What is measured while a model trains, with the data it asks for.

    Args:
        node: with ``batches`` where it looks at data of its own.
        given: processor, rank and world_size.
    """
    values = plain(node)
    parts: dict[str, Any] = {}
    if "batches" in values:
        parts["batches"] = build_part(values.pop("batches"), **given)
    if "processor" in argument_names(values[TARGET], "validation"):
        parts["processor"] = given["processor"]
    return build_part(values, **parts)


def build_tasks(config: Config, **given: Any) -> list[Any]:
    """Benchmarks by their names, each with what it asks for.

    Args:
        config: with the group ``task``.
        given: options and engine.
    """
    tasks = []
    for name, node in config.task.items():
        if node is None:
            continue
        values = plain(node)
        known = argument_names(values[TARGET], f"task.{name}")
        parts = {key: part for key, part in given.items() if key in known}
        tasks.append(build_part(values, **parts))
    return tasks


def build_options(values: Mapping[str, Any]) -> GenerationOptions:
    """How replies are made.

    Args:
        values: of a configuration's ``generation``, with its ``_target_``.

    Raises:
        ConfigError: a value of another type.
        RequestError: one outside its range.
    """
    check_arguments(dict(values), "generation")
    options: GenerationOptions = build_part(dict(values))
    return options


def require_world(config: Config) -> None:
    """Refuse to start without the data set made on this machine, saying how it is made.

    Raises:
        ConfigError: ``world_dir`` is not there.
        DataError: it is half made, or of another version.
    """
    if config.world_dir is None:
        return
    folder = Path(config.world_dir)
    if not folder.is_dir():
        known = [name for name in (folder.name, str(config.name)) if name in VERSIONS]
        raise ConfigError(
            f"world_dir={folder} was asked for and is not there. "
            f"Make it: mllm-npu data {(*known, 'digits')[0]} --out {folder}"
        )
    check_data(folder)


def _own_error(error: BaseException) -> BaseException:
    """What lies behind Hydra's error: ours, refused arguments as one of ours, or a bug as it is."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, MllmNpuError):
            return cause
    if len(causes) > 1 and not isinstance(causes[-1], TypeError | ValueError):
        return causes[-1]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ConfigError(f"a part cannot be built: {' '.join(lines)}. See: mllm-npu config")
