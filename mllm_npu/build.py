"""Turn configurations into objects: the one place that joins the floors and instantiates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from torch import nn

from mllm_npu.config import Config, read_config, select, to_yaml, write_config
from mllm_npu.data.worlds.recipes import VERSIONS, check_data
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import ThreadWatch, tune_process
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError, MllmNpuError, WeightsError
from mllm_npu.inference.engine import Engine
from mllm_npu.models.lora import merge_lora
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.weights import load_weights, save_weights
from mllm_npu.processing.processor import Processor

MODEL_FILE = "model.yaml"
MODEL_KEYS = ("name", "tokenizer", "processor", "models", "lora", "generation", "world_dir")


def build_part(node: Any, **parts: Any) -> Any:
    """Build one ``_target_`` with the parts that are objects already.

    Raises:
        ConfigError: the constructor refused what it was given; a package error passes as it is.
    """
    if node is None:
        raise ConfigError(
            "a part of the model or the run is null and is needed. See: mllm-npu config"
        )
    try:
        factory = instantiate(node, _convert_="all", _partial_=True)
        return factory(**parts)
    except HydraException as error:
        raise _own_error(error) from error
    except TypeError as error:
        raise ConfigError(
            f"{node.get('_target_')} cannot be built: {error}. See: mllm-npu config"
        ) from error


def build_model(config: Config) -> GeneralizedMultimodalModel:
    """Compose the model on the default device; ``with torch.device("meta")`` takes no memory.

    Raises:
        ConfigError: a part is missing or does not fit, or it is no multimodal model.
    """
    model = build_part(config.models)
    if not isinstance(model, GeneralizedMultimodalModel):
        raise ConfigError(
            f"models._target_ gives a {type(model).__name__}; "
            "give GeneralizedMultimodalModel, SEED or a class that extends one of them."
        )
    return model


def build_processor(config: Config) -> Processor:
    """Tokenizer, any-resolution and chat frame: one object for training, evaluation, serving."""
    return build_part(config.processor, tokenizer=build_part(config.tokenizer))


def build_trainer(config: Config) -> Any:
    """Everything a training stage needs, built in the order a run needs it.

    Returns:
        The object of ``train._target_``: a Trainer, unless the configuration says otherwise.

    Raises:
        MllmNpuError: whatever part cannot be built says why.
    """
    require_world(config)
    build_part(config.generation)  # used after training only, and must not fail then
    tune_process(config.threads)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    mesh = Mesh.from_environment(device)
    processor = build_processor(config)
    model = build_model(config)
    check_fit(model, processor)
    if config.initialise_from:
        _initialise(model, Path(config.initialise_from))
    if config.lora is not None:
        build_part(config.lora).apply(model.language_model)
    objective = build_part(config.objective, model=model)
    batches = build_part(
        config.dataset, processor=processor, rank=mesh.rank, world_size=mesh.world_size
    )
    return build_part(
        config.train,
        objective=objective,
        batches=batches,
        checkpoints=build_part(config.train.checkpoints, config=to_yaml(config)),
        mesh=mesh,
        device=device,
        thread_watch=ThreadWatch(config.threads),
    )


def _initialise(model: nn.Module, folder: Path) -> None:
    if not folder.exists():
        raise ConfigError(
            f"initialise_from={folder} was asked for and is not there. Train the stage before this "
            "one (an experiment of stages trains all), or set initialise_from=null."
        )
    load_weights(model, folder)


def require_world(config: Config) -> None:
    """Refuse to start without the data set, saying how it is made.

    Raises:
        ConfigError: ``world_dir`` is not there.
        DataError: it is half made, or of another version.
    """
    folder = Path(config.world_dir)
    if not folder.is_dir():
        known = [name for name in (folder.name, str(config.name)) if name in VERSIONS]
        raise ConfigError(
            f"world_dir={folder} was asked for and is not there. "
            f"Make it: mllm-npu data {(*known, 'digits')[0]} --out {folder}"
        )
    check_data(folder)


def check_fit(model: Any, processor: Processor) -> None:
    """Refuse a processor whose ids, slots, tiles or lengths do not fit the model.

    Raises:
        ConfigError: with both numbers.
    """
    vocab_size, num_ids = model.language_model.vocab_size, len(processor.tokenizer)
    if num_ids > vocab_size:
        raise ConfigError(
            f"the tokenizer has {num_ids} tokens, the language model {vocab_size} rows. "
            "Set models.language_model.config.vocab_size, or take the tokenizer of the model."
        )
    drawn = getattr(model, "drawn_features", None)
    pairs = [
        ("num_read_tokens", processor.num_read_tokens, model.projector.num_queries),
        (
            "any_resolution.tile_size",
            processor.any_resolution.tile_size,
            model.vision_encoder.tile_size,
        ),
    ]
    if drawn is not None:
        pairs.append(("num_drawn_tokens", processor.num_drawn_tokens, drawn.num_tokens))
    for name, given, needed in pairs:
        if given != needed:
            raise ConfigError(
                f"processor.{name}={given} does not fit the model, which needs {needed}. "
                f"Set processor.{name}={needed}."
            )
    longest = model.language_model.max_tokens
    if longest is not None and processor.max_tokens > longest:
        raise ConfigError(
            f"processor.max_tokens={processor.max_tokens} was asked for, the language model takes "
            f"at most {longest} positions. Lower the first, or choose a model of more positions."
        )


def save_model_folder(model: nn.Module, config: Config, folder: Path) -> None:
    """Write everything that answering needs: weights, configuration, tokenizer.

    The folder appears whole or not at all, its configuration names its own tokenizer, and low-rank
    updates are folded into the weights.

    Raises:
        WeightsError: it cannot be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    described = select(config, MODEL_KEYS)
    described.tokenizer.path = "tokenizer"
    described.processor.augment = None
    described.lora = None
    merge_lora(model)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        save_weights(partial, model)
        shutil.copytree(config.tokenizer.path, partial / "tokenizer")
        write_config(described, partial / MODEL_FILE)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise WeightsError(
            f"The model cannot be written to {folder}: {error}. Make room on its disk; the same "
            "command writes it from the last checkpoint."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def find_model_folder(run: Path) -> Path:
    """The model folder that a run, a stage or a model folder means; of a run, the last stage's.

    Raises:
        ConfigError: there is none.
    """
    if (run / MODEL_FILE).is_file():
        return run
    if (run / "model" / MODEL_FILE).is_file():
        return run / "model"
    found = sorted(run.glob(f"*/model/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(
            f"a trained model was asked for in {run}; there is none. "
            "Train one: mllm-npu train experiment=digits"
        )
    return found[-1].parent


def load_engine(folder: Path, device: str = "auto") -> tuple[Engine, Config]:
    """Read a model folder into an engine that answers, and its configuration.

    Raises:
        ConfigError: the folder's configuration cannot be used.
        WeightsError: its weights do not fit.
    """
    config = read_config(folder / MODEL_FILE, "model")
    config.tokenizer.path = str(folder / config.tokenizer.path)
    tune_process("auto")
    processor = build_processor(config)
    model = build_model(config)
    check_fit(model, processor)
    load_weights(model, folder)
    return Engine(model=model, processor=processor, device=pick_device(device)), config


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
