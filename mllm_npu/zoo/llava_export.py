"""Write a model folder of the LLaVA family in the layout of the Hub, for transformers and vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.model_folder import load_model
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.zoo.llava_config import make_config, read_kept_config, update_config, write_side_files
from mllm_npu.zoo.llava_family import FAMILIES
from mllm_npu.zoo.llava_names import hub_names, require_values, untied_values

_SHARD_SIZE = "5GB"


def export_llava(folder: Path, out: Path, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Export a model folder.

    Args:
        folder: made by training, import or export of this package.
        out: folder to write; not there yet. It appears whole or not at all.
        say: is told in one line what is written.

    Raises:
        ConfigError: a model with parts that no LLaVA model has, or ``out`` is there already.
        WeightsError: values that do not fit, or that cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    model, processor, config = load_model(folder)
    if type(model) is not GeneralizedMultimodalModel:
        raise ConfigError(
            f"{folder} holds a {type(model).__name__}; a model that reads and does not draw can be "
            f"exported as one of {', '.join(FAMILIES)}."
        )
    if processor.image_ids.begin is not None:
        raise ConfigError(
            f"{folder} was trained with tags around pictures, which no LLaVA model of transformers "
            "has. Train with processor.image_token=<image>."
        )
    tokenizer = Path(config.tokenizer.path)
    values = _hub_values(model)
    kept = read_kept_config(tokenizer)
    described = (
        make_config(model, processor)
        if kept is None
        else update_config(kept, model.language_model.vocab_size, _dtype(values))
    )
    _check(values, described)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_side_files(partial, tokenizer, described, model, processor)
        say(f"writing {len(values)} values as {described['model_type']}")
        save_torch_state_dict(
            values, partial, max_shard_size=_SHARD_SIZE, metadata={"format": "pt"}
        )
        partial.rename(out)
    except OSError as error:
        raise WeightsError(
            f"The model cannot be written to {out}: {error}. Choose a folder that can be written, "
            "on a disk with room."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _hub_values(model: GeneralizedMultimodalModel) -> dict[str, Tensor]:
    """Values by their names on the Hub, all of the language model's type.

    A head that is the table is left out. Projector and newline compute in full precision here.
    """
    own, dtype = untied_values(model), next(model.language_model.parameters()).dtype
    return {name: own[mine].to(dtype).contiguous() for mine, name in hub_names(own).items()}


def _dtype(values: dict[str, Tensor]) -> str:
    return str(next(iter(values.values())).dtype).removeprefix("torch.")


def _check(values: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Refuse values that the class of transformers would not take as they are."""
    family = getattr(transformers, FAMILIES[config["model_type"]])
    with torch.device("meta"):
        wanted = family(family.config_class.from_dict(dict(config)))
    own = untied_values(wanted)
    require_values(values, own)
