"""Read the configuration of a released LLaVA model as values of our configuration groups."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from mllm_npu.errors import ConfigError
from mllm_npu.zoo.hub_folder import HubFolder
from mllm_npu.zoo.llava_pixels import Pixels, read_pixels

Values = dict[str, Any]

FAMILIES: Mapping[str, str] = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
}
"""``model_type`` of config.json, and the class of transformers that runs it."""

_DTYPES = ("float32", "bfloat16", "float16")
_WITH_CLASS_TOKEN = ("clip_vision_model",)
_WITHOUT_CLASS_TOKEN = ("siglip_vision_model",)
_MODELS = "mllm_npu.models"
_NO_MEANING = frozenset({"use_cache", "vision_use_head"})
"""Settings of a part that change nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaValues:
    """A released model in our words.

    Args:
        models: of the configuration group.
        tiling: of ``processor.any_resolution``.
        num_read_tokens: tokens of a tile.
        max_tokens: positions of its language model.
        image_token_id: stands for a picture in its vocabulary.
    """

    models: Values
    tiling: Values
    num_read_tokens: int
    max_tokens: int
    image_token_id: int


def require_family(hub: HubFolder) -> str:
    """The family of a folder.

    Raises:
        ConfigError: one that is not known here; it lists those that are.
    """
    if hub.model_type in FAMILIES:
        return hub.model_type
    near = difflib.get_close_matches(hub.model_type, list(FAMILIES), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"{hub.path / 'config.json'} is of the family {hub.model_type!r}, which cannot be "
        f"imported.{hint} Known are {', '.join(FAMILIES)}; SEED-X and models trained here are "
        "imported by workers=seedx or weights=[...]. A language model or vision encoder alone is "
        "named as models.language_model.path or models.vision_encoder.path."
    )


def read_family(hub: HubFolder, *, dtype: str | None = None) -> LlavaValues:
    """Everything that the configuration files of a folder say.

    Args:
        hub: the folder.
        dtype: of the parameters; None keeps that of the files.

    Raises:
        ConfigError: a family, encoder, language model or setting that is not known here.
    """
    family = require_family(hub)
    config = _library_config(hub, family)
    vision, text = config.vision_config, config.text_config
    pixels = read_pixels(hub, tile_size=int(vision.image_size))
    chosen = _dtype(hub, dtype)
    num_tokens = (int(vision.image_size) // int(vision.patch_size)) ** 2
    models = {
        "_target_": f"{_MODELS}.mllm.GeneraliazedMultimodalModels",
        "vision_encoder": _vision_encoder(hub, config, pixels, chosen),
        "projector": {
            "_target_": f"{_MODELS}.projector.mlp.MLPProjector",
            "input_dim": int(vision.hidden_size),
            "output_dim": int(text.hidden_size),
            "num_queries": num_tokens,
            "depth": 2,
            "norm": False,
            "bias": bool(config.multimodal_projector_bias),
            "activation": str(config.projector_hidden_act),
        },
        "language_model": _language_model(hub, config, chosen),
        "patch_positions": False,
        "bidirectional_images": False,
        "newline": family != "llava",
        "language_weight": 1.0,
    }
    return LlavaValues(
        models=models,
        tiling=pixels.tiling,
        num_read_tokens=num_tokens,
        max_tokens=int(text.max_position_embeddings),
        image_token_id=int(config.image_token_id),
    )


def _library_config(hub: HubFolder, family: str) -> Any:
    try:
        return CONFIG_MAPPING[family].from_dict(dict(hub.config))
    except Exception as error:
        # The library checks values with errors of its own; whichever it is, the file is of no use.
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{hub.path / 'config.json'} cannot be used: {said}") from error


def _dtype(hub: HubFolder, asked: str | None) -> str:
    found = asked or str(hub.config.get("dtype") or hub.config.get("torch_dtype") or "float32")
    if found not in _DTYPES:
        raise ConfigError(f"dtype={found} was asked for. Choose one of {', '.join(_DTYPES)}.")
    return found


def _vision_encoder(hub: HubFolder, config: Any, pixels: Pixels, dtype: str) -> Values:
    vision = config.vision_config
    kind, strategy = vision.model_type, config.vision_feature_select_strategy
    known = {
        **dict.fromkeys(_WITH_CLASS_TOKEN, "default"),
        **dict.fromkeys(_WITHOUT_CLASS_TOKEN, "full"),
    }
    if known.get(kind) != strategy:
        pairs = ", ".join(f"{name} with {wanted}" for name, wanted in known.items())
        raise ConfigError(
            f"{hub.path}: a {kind} with vision_feature_select_strategy={strategy} cannot be "
            f"imported; the features must be those of the grid alone. Known are {pairs}."
        )
    layer = config.vision_feature_layer
    depth = int(vision.num_hidden_layers)
    place = layer - depth - 1 if isinstance(layer, int) and layer >= 0 else layer
    if not isinstance(place, int) or not -depth <= place <= -1:
        raise ConfigError(
            f"{hub.path}: vision_feature_layer={layer} cannot be imported. One layer of 1..{depth} "
            f"or -{depth}..-1 is known."
        )
    return {
        "_target_": f"{_MODELS}.vision_encoder.huggingface.HuggingFaceVisionEncoder",
        "config": _plain(vision),
        "layer": place,
        "final_norm": False,
        "mean": pixels.mean,
        "std": pixels.std,
        "dtype": dtype,
    }


def _language_model(hub: HubFolder, config: Any, dtype: str) -> Values:
    text = config.text_config
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{hub.path}: the language model is of the family {text.model_type!r}, which is no "
            "causal language model of transformers."
        )
    # The whole model says whether its head is its table; the part's own word may be a default.
    values = {**_plain(text), "tie_word_embeddings": bool(config.tie_word_embeddings)}
    return {
        "_target_": f"{_MODELS}.language_model.huggingface.HuggingFaceLanguageModel",
        "config": values,
        "dtype": dtype,
    }


def _plain(config: Any) -> Values:
    """The family of a part and its own settings; what else a file holds is of no use to it."""
    shared = {entry.name for entry in fields(PreTrainedConfig)} | _NO_MEANING
    own = {entry.name for entry in fields(config)} - shared
    values = config.to_dict()
    kept = {key: values[key] for key in values if key in own}
    return {"model_type": config.model_type, **kept}
