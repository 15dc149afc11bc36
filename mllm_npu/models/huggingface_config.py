"""Read a Hugging Face config from a dict, folder or cached id; refuse keys its family lacks."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.hub_cache import download_advice, part_folder
from mllm_npu.models.weights import load_weights

_UNDECLARED_KEYS = (
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
    "torch_dtype",
    "head_dim",
)
"""Keys that config classes read without declaring them, mostly from older config files."""

_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "image_size",
    "patch_size",
    "vocab_size",
    "max_position_embeddings",
)


def read_config(
    config: Mapping[str, Any] | None, path: str | None, *, part: str
) -> PreTrainedConfig:
    """Give the config of a part that is described by exactly one of a dict and a local folder.

    Args:
        config: ``model_type`` and the keys of that family's config class.
        path: a folder with ``config.json``, or OWNER/NAME of a model in the local cache of the
            Hugging Face Hub; nothing is downloaded and no code in it is run.
        part: what is being built, for the messages.

    Raises:
        ConfigError: both or none given, no such folder, unknown family or key, values the family
            refuses.
    """
    if (config is None) == (path is None):
        given = "both config and path" if config is not None else "neither config nor path"
        raise ConfigError(f"{part} was given {given}; give exactly one of them.")
    if path is None:
        return _from_dict(dict(config or {}), part)
    folder = part_folder(path)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{part} was asked to load {path!r}, but there is no config.json; give a local folder "
            f"of a model.{download_advice(path)}"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, StrictDataclassError) as error:
        raise ConfigError(
            f"{part} cannot read {folder / 'config.json'}: {_first_line(error)}"
        ) from error


def build_pretrained(
    auto_class: Any, config: PreTrainedConfig, path: str | None, *, part: str, **options: Any
) -> Any:
    """Build a transformers model from its config, or load it from a local folder of weights.

    Under ``with torch.device("meta")`` the weights of a folder are left out, as all others are.

    Args:
        auto_class: AutoModel or a sibling of it.
        config: from ``read_config``.
        path: the folder or the id in the cache, or None for random weights.
        part: what is being built, for the messages.
        options: further keywords of transformers.

    Raises:
        WeightsError: the folder has no weights, lacks parameters of the model, or holds a pickle of
            more than tensors.
    """
    if path is None or torch.get_default_device().type == "meta":
        return auto_class.from_config(config, trust_remote_code=False, **options)
    path = str(part_folder(path))
    if not any(Path(path).glob("*.safetensors")):
        # Torch files go through our own loader, which runs nothing that is in them.
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=False, **options)
        load_weights(model, path)
        return model
    model, report = auto_class.from_pretrained(
        path,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(f"{path!r} lacks {len(missing)} parameters of {part}: {missing[:4]}.")
    return model


def resolve_dtype(name: str, *, part: str) -> torch.dtype:
    """Turn "float32", "bfloat16" or "float16" into the torch dtype.

    Raises:
        ConfigError: another name.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise ConfigError(f"{part} was asked for dtype={name!r}; choose one of {', '.join(known)}.")
    return known[name]


def _from_dict(values: dict[str, Any], part: str) -> PreTrainedConfig:
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING.keys()), n=3)
        raise ConfigError(
            f"{part} was given model_type={model_type!r}, which transformers does not know; near "
            f"names: {', '.join(near) or 'none'}."
        )
    config_class = CONFIG_MAPPING[model_type]
    known = {entry.name for entry in dataclasses.fields(config_class)} | set(
        config_class.attribute_map
    )
    unknown = sorted(set(values) - known - set(_UNDECLARED_KEYS))
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known), n=3, cutoff=0.5)
        raise ConfigError(
            f"{part} was given unknown key {', '.join(map(repr, unknown))} for model_type "
            f"{model_type!r}; near keys: {', '.join(near) or 'none'}."
        )
    small = [
        f"{key}={values[key]}" for key in _SIZES if key in values and not _is_size(values[key])
    ]
    if small:
        raise ConfigError(f"{part} was given {', '.join(small)}; give whole numbers from 1 on.")
    try:
        return config_class(**values)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{part} cannot build a {model_type!r} config: {_first_line(error)}"
        ) from error


def _is_size(value: Any) -> bool:
    """Whether a plain number may be a size; families have lists and null for some."""
    return not isinstance(value, int | float) or (isinstance(value, int) and value >= 1)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
