"""Folders that hold a model: written after training, made of released weights, read to answer."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from mllm_npu.build import Say, build_model, build_processor
from mllm_npu.config import Config, plain, read_config, select, write_config
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import tune_process
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.inference.engine import Engine
from mllm_npu.model_fit import check_fit
from mllm_npu.models.drawing import Detokenizer, Drawing
from mllm_npu.models.lora import merge_lora
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.quantization import quantize_model
from mllm_npu.models.weights import save_weights
from mllm_npu.processing.processor import Processor
from mllm_npu.shipped import resolve_run, shipped_names

MODEL_FILE = "model.yaml"
MODEL_KEYS = (
    "name",
    "tokenizer",
    "processor",
    "models",
    "lora",
    "generation",
    "world_dir",
    "weights",
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
    described.lora = described.weights = None
    described.models.pop("pretrained_model_name_path", None)
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

    Args:
        run: a folder, or the name of a model that comes with the package.

    Raises:
        ConfigError: there is none.
    """
    run = resolve_run(run)
    if (run / MODEL_FILE).is_file():
        return run
    if (run / "model" / MODEL_FILE).is_file():
        return run / "model"
    found = sorted(run.glob(f"*/model/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(
            f"a trained model was asked for in {run}; there is none. "
            "Train one: mllm-npu train experiment=digits, or name one that comes with the package: "
            f"{', '.join(shipped_names())}"
        )
    return found[-1].parent


def list_model_files(folder: Path, config: Config) -> list[Path]:
    """Files and folders that the answers of a model folder come from.

    Args:
        folder: of the model.
        config: as it was read from there.
    """
    weights = [folder / path for path in config.weights or ()]
    return [
        folder / MODEL_FILE,
        Path(config.tokenizer.path),
        *(weights or sorted(folder.glob("*.safetensors"))),
    ]


def load_model(
    folder: Path,
) -> tuple[GeneralizedMultimodalModel | Detokenizer, Processor, Config]:
    """Read a model folder: the model on the CPU, its processor and its configuration.

    Raises:
        ConfigError: the folder's configuration cannot be used.
        WeightsError: its weights do not fit.
    """
    config = read_config(folder / MODEL_FILE, "model")
    config.tokenizer.path = str(folder / config.tokenizer.path)
    _find_brought_parts(folder, config)
    tune_process("auto")
    processor = build_processor(config)
    weights = [folder / path for path in config.weights] if config.weights else [folder]
    model = build_model(config, weights)
    check_fit(model, processor)
    return model, processor, config


def load_engine(
    folder: Path, device: str = "auto", *, quantize: str | None = None
) -> tuple[Engine, Config]:
    """Read a model folder into an engine that answers, and its configuration.

    Args:
        folder: of the model.
        device: where it runs.
        quantize: bfloat16, float16 or int8 keeps its weights in fewer bytes; None as they are.

    Raises:
        ConfigError: the folder's configuration cannot be used, its model cannot answer, or it
            cannot be quantised so.
        WeightsError: its weights do not fit.
    """
    model, processor, config = load_model(folder)
    if isinstance(model, Detokenizer):
        raise ConfigError(
            f"{folder} holds a de-tokenizer without a language model, which cannot answer. "
            "Redraw pictures with it: mllm-npu redraw"
        )
    if quantize is not None:
        quantize_model(model, quantize)
    return Engine(model=model, processor=processor, device=pick_device(device)), config


def world_of(folder: Path) -> Path:
    """The data set a model folder was trained on, whose held-out part it is measured on.

    Raises:
        ConfigError: it names none.
    """
    config = read_config(folder / MODEL_FILE, "model")
    if config.world_dir is None:
        raise ConfigError(
            f"{folder} was not trained on a data set of this package, whose held-out part could "
            "be measured. Redraw pictures with it, or ask it: mllm-npu redraw, mllm-npu generate"
        )
    return Path(config.world_dir)


def load_artist(folder: Path, device: str = "auto") -> tuple[Drawing, Config]:
    """Read a model folder whose model draws, ready to draw, and its configuration.

    Raises:
        ConfigError: the folder's configuration cannot be used, or its model has no image decoder.
        WeightsError: its weights do not fit.
    """
    model, _, config = load_model(folder)
    if not isinstance(model, Drawing) or model.image_decoder is None:
        raise ConfigError(
            f"{folder} holds a {type(model).__name__} without an image decoder; give a model that "
            "draws."
        )
    return model.to(pick_device(device)).eval(), config


def import_model(
    config: Config, out: Path, *, copy: bool = False, say: Say = lambda _: None
) -> Path:
    """Make a model folder of released weights, so that every command takes it.

    Args:
        config: of the root ``model``, with the files and folders of ``weights``.
        out: folder to write.
        copy: write the values into it as one safetensors file; else it refers to where they are.
        say: is told in one line what became of the weights.

    Raises:
        ConfigError: no weights are named, or ``out`` is there already.
        WeightsError: the weights do not fit the model; nothing is written then.
    """
    if not config.weights:
        raise ConfigError("weights=null was asked for. Name the files or folders that hold them.")
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    sources = [Path(path).expanduser().resolve() for path in config.weights]
    processor = build_processor(config)
    model = build_model(config, sources, say=say)
    check_fit(model, processor)
    if copy:
        save_model_folder(model, config, out)
        return out
    described = select(config, MODEL_KEYS)
    described.weights = [str(path) for path in sources]
    described.tokenizer.path = str(Path(config.tokenizer.path).expanduser().resolve())
    write_config(described, out / MODEL_FILE)
    return out


def _find_brought_parts(folder: Path, config: Config) -> None:
    """Point parts to the configuration files that a model folder brings along.

    A part may be described by a folder in the Hugging Face layout; a model folder that travels
    holds a copy of that folder's ``config.json``, and names it relative to itself.
    """
    for name, part in plain(config.models).items():
        path = part.get("path") if isinstance(part, dict) else None
        if path and (folder / path / "config.json").is_file():
            config.models[name].path = str(folder / path)
