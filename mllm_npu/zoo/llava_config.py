"""Write the configuration, processor and templates of a LLaVA model as the Hub has them.

A model that was imported brings the files it came with, and they go back as they are; only the
size of a vocabulary that has grown is changed. For others they are made from its parts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, GenerationConfig

from mllm_npu.errors import ConfigError
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.projector.mlp import MLPProjector
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.single_tile import SingleTile
from mllm_npu.zoo.hub_folder import CONFIG_FILE, is_side_file
from mllm_npu.zoo.llava_family import FAMILIES
from mllm_npu.zoo.llava_template import make_jinja

Values = dict[str, Any]


def read_kept_config(tokenizer: Path) -> Values | None:
    """The config.json that a model was imported with; None where it was not imported."""
    file = tokenizer / CONFIG_FILE
    if not file.is_file():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    return values if values.get("model_type") in FAMILIES else None


def update_config(kept: Values, vocab_size: int, dtype: str) -> Values:
    """A kept configuration, with the rows its vocabulary has now and the type of its values."""
    config = CONFIG_MAPPING[kept["model_type"]].from_dict(dict(kept))
    updated = dict(kept)
    if config.text_config.vocab_size != vocab_size:
        updated["text_config"] = {**kept.get("text_config", {}), "vocab_size": vocab_size}
    for key in ("dtype", "torch_dtype"):
        if key in kept:
            updated[key] = dtype
    return updated


def make_config(model: GeneralizedMultimodalModel, processor: Processor) -> Values:
    """The configuration of a model that was composed here.

    Raises:
        ConfigError: parts that no LLaVA model has.
    """
    encoder: Any = model.vision_encoder
    tiling, projector = processor.any_resolution, model.projector
    if not isinstance(projector, MLPProjector) or not hasattr(encoder, "vision_model"):
        raise ConfigError(
            f"A model with {type(projector).__name__} and {type(encoder).__name__} was to be "
            "exported; LLaVA models of transformers have an MLPProjector and an encoder of theirs."
        )
    if encoder.layer == -1 and encoder.final_norm:
        raise ConfigError(
            "The vision encoder gives its last states with the final norm, which no LLaVA model of "
            "transformers does. Train it with final_norm=false, or with layer=-2."
        )
    text: Any = model.language_model.causal_lm.config  # type: ignore[union-attr]
    vision: Any = encoder.vision_model.config
    values: Values = {
        "vision_config": vision.to_dict(),
        "text_config": {**text.to_dict(), "vocab_size": model.language_model.vocab_size},
        "image_token_index": processor.image_ids.slots[0],
        "projector_hidden_act": projector.activation,
        "multimodal_projector_bias": projector.bias,
        "vision_feature_layer": encoder.layer,
        "vision_feature_select_strategy": (
            "default" if vision.model_type == "clip_vision_model" else "full"
        ),
        "tie_word_embeddings": bool(text.tie_word_embeddings),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    family = "llava"
    if isinstance(tiling, JoinedTiles):
        size = tiling.tile_size
        values["image_grid_pinpoints"] = [[rows * size, cols * size] for cols, rows in tiling.grids]
        family = "llava_onevision" if tiling.picks_by_company else "llava_next"
        if tiling.picks_by_company:
            values["vision_aspect_ratio"] = f"anyres_max_{tiling.max_grid_tiles}"
    elif not isinstance(tiling, SingleTile):
        raise ConfigError(
            f"Pictures are cut by {type(tiling).__name__}, as in no LLaVA model of transformers. "
            "Train with SingleTile or JoinedTiles."
        )
    made = CONFIG_MAPPING[family](**values)
    return {**made.to_dict(), "architectures": [FAMILIES[family]]}


def write_side_files(
    out: Path,
    tokenizer: Path,
    config: Values,
    model: GeneralizedMultimodalModel,
    processor: Processor,
) -> None:
    """Write everything beside the weights.

    Args:
        out: folder of the Hub's layout.
        tokenizer: of the model folder, with what it was imported with.
        config: of config.json.
        model: whose it is.
        processor: cuts its pictures and frames its conversations.
    """
    kept = read_kept_config(tokenizer)
    for file in sorted(tokenizer.iterdir()):
        if is_side_file(file):
            shutil.copyfile(file, out / file.name)
    if kept != config:
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (out / CONFIG_FILE).write_text(text, encoding="utf-8")
    if kept is None:
        _write_processor(out, config, model, processor)


def _write_processor(
    out: Path, config: Values, model: GeneralizedMultimodalModel, processor: Processor
) -> None:
    """The processor's files of a model that was composed here."""
    pixels = _pixel_rules(config, model, processor)
    _write_json(out / "preprocessor_config.json", pixels)
    family, strategy = config["model_type"], config["vision_feature_select_strategy"]
    told: Values = {
        "processor_class": FAMILIES[family].replace("ForConditionalGeneration", "Processor"),
        "image_token": processor.tokenizer.convert_ids_to_tokens(config["image_token_index"]),
        "vision_feature_select_strategy": strategy,
    }
    if family == "llava_onevision":
        told["num_image_tokens"] = processor.num_read_tokens
        told["vision_aspect_ratio"] = config["vision_aspect_ratio"]
    else:
        told["patch_size"] = config["vision_config"]["patch_size"]
        told["num_additional_image_tokens"] = int(strategy == "default")
    _write_json(out / "processor_config.json", told)
    (out / "chat_template.jinja").write_text(
        make_jinja(processor.chat_template, told["image_token"]), encoding="utf-8"
    )
    tokens = processor.tokenizer
    GenerationConfig(
        bos_token_id=tokens.bos_token_id,
        eos_token_id=processor.eos_id,
        pad_token_id=processor.pad_id,
    ).save_pretrained(out)


def _pixel_rules(config: Values, model: GeneralizedMultimodalModel, processor: Processor) -> Values:
    tiling, encoder = processor.any_resolution, model.vision_encoder
    edge = tiling.tile_size
    square = {"height": edge, "width": edge}
    values: Values = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
        "size": square,
        "do_center_crop": False,
    }
    if isinstance(tiling, JoinedTiles):
        is_next = config["model_type"] == "llava_next"
        kind = "LlavaNextImageProcessor" if is_next else "LlavaOnevisionImageProcessor"
        cropped = {"size": {"shortest_edge": edge}, "crop_size": square, "do_center_crop": True}
        values |= cropped if is_next else {}
        values |= {"do_pad": True, "image_grid_pinpoints": config["image_grid_pinpoints"]}
        return {**values, "image_processor_type": kind}
    if isinstance(tiling, SingleTile) and tiling.fit != "stretch":
        shortest = tiling.shortest_edge or edge
        values |= {"size": {"shortest_edge": shortest}, "crop_size": square}
        values |= {"do_center_crop": True, "do_pad": tiling.fit == "pad"}
        return {**values, "image_processor_type": "LlavaImageProcessor"}
    return {**values, "image_processor_type": "SiglipImageProcessor"}


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
