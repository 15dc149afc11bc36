"""Numbers of parts that other parts must match: widths, tokens, tile sizes, from configurations."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.hub_cache import download_advice, part_folder


def vision_number(field_name: str, encoder: Mapping[str, Any]) -> int:
    """A number of a vision encoder.

    Args:
        field_name: width, num_tokens or tile_size.
        encoder: its configuration, with ``config`` or ``path``.

    Raises:
        ConfigError: it is not known, or the configuration cannot be read.
    """
    stated = _stated_numbers(encoder, ("width", "num_tokens", "tile_size"))
    if stated is not None:
        return _known_number(field_name, stated, "vision encoder")
    values = _huggingface_values(encoder, "vision encoder")
    inner = values.get("vision_config") or values
    _require_numbers(inner, ("image_size", "patch_size", "num_patches", "hidden_size"))
    size, patch = inner.get("image_size"), inner.get("patch_size")
    if size is None and inner.get("num_patches") and patch:
        size = round(inner["num_patches"] ** 0.5) * patch
    numbers = {
        "width": inner.get("hidden_size"),
        "tile_size": size,
        "num_tokens": (size // patch) ** 2 if size and patch else None,
    }
    return _known_number(field_name, numbers, "vision encoder")


def language_number(field_name: str, model: Mapping[str, Any]) -> int:
    """A number of a language model.

    Args:
        field_name: width or vocab_size.
        model: its configuration, with ``config`` or ``path``.

    Raises:
        ConfigError: it is not known, or the configuration cannot be read.
    """
    if field_name == "vocab_size" and isinstance(model, Mapping) and model.get("vocab_size"):
        _require_numbers(model, ("vocab_size",))
        return _known_number(field_name, model, "language model")
    values = _huggingface_values(model, "language model")
    inner = values.get("text_config") or values
    names = ("hidden_size", "n_embd", "d_model", "dim")
    _require_numbers(inner, names)
    width = next((inner[key] for key in names if inner.get(key)), None)
    numbers = {"width": width, "vocab_size": inner.get("vocab_size")}
    return _known_number(field_name, numbers, "language model")


def _stated_numbers(part: Any, names: Sequence[str]) -> dict[str, Any] | None:
    """Numbers that a part without a Hugging Face configuration is built with; None for others."""
    if not isinstance(part, Mapping) or part.get("config"):
        return None
    taken = _arguments_of(part)
    if not set(names) <= set(taken):
        return None
    defaults = {name: taken[name].default for name in names}
    required = inspect.Parameter.empty
    stated = {
        name: part.get(name, None if value is required else value)
        for name, value in defaults.items()
    }
    _require_numbers(stated, names)
    return stated


def _arguments_of(part: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    """What the class of a part takes; nothing where it is not there."""
    module, _, name = str(part.get("_target_", "")).rpartition(".")
    try:
        return inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}  # the place that builds it says what is wrong with the name


def _known_number(field_name: str, numbers: Mapping[str, Any], part: str) -> int:
    if not isinstance(numbers.get(field_name), int):
        known = ", ".join(key for key, value in numbers.items() if value is not None)
        raise ConfigError(
            f"the {field_name} of the {part} is not in its configuration (there is: {known}). "
            "Write the number."
        )
    return int(numbers[field_name])


def _require_numbers(values: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        value = values.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}={value!r} was asked for. Give a whole number from 1 on.")


def _huggingface_values(part: Any, what: str) -> dict[str, Any]:
    """Numbers of a part: inline ``config`` over its folder's over the family's defaults."""
    if not isinstance(part, Mapping):
        raise ConfigError(
            f"the {what} is {part!r}, and other parts take their widths from it. Give a part."
        )
    values: dict[str, Any] = {}
    if part.get("path"):
        file = part_folder(str(part["path"])) / "config.json"
        if not file.is_file():
            raise ConfigError(
                f"{file} was asked for and is not there. Give a folder saved by save_pretrained."
                f"{download_advice(str(part['path']))}"
            )
        values.update(_read_json(file))
    values.update(part.get("config") or {})
    families = importlib.import_module("transformers").CONFIG_MAPPING
    model_type = values.get("model_type")
    if model_type not in families:
        near = difflib.get_close_matches(str(model_type), list(families.keys()), n=3)
        raise ConfigError(
            f"model_type {model_type!r} is not a family transformers knows. "
            f"Near: {', '.join(near) or 'none'}."
        )
    defaults: dict[str, Any] = families[model_type]().to_dict()
    return defaults | values


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Save the part again.") from error
    return values if isinstance(values, dict) else {}
