"""Turn a model configuration written for the original into the values that build the same here.

The original's page calls them ``configs/models/*.yaml`` (everything under ``mllm``) and
``configs/generation/*.yaml`` (the SDXL adapter); SEED-X has a file for each part of the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.original_names import (
    TARGET,
    TARGETS,
    explain_original,
    is_original,
    short_name,
)

Values = dict[str, Any]

_WITHOUT_MEANING = ("_convert_", "_recursive_", "low_cpu_mem_usage", "image_start_id")
_WEIGHTS = (
    "pretrained_model_path",
    "pretrained_model_name_path",
    "pretrained_model_name_or_path",
)
_NEEDED = object()


class _Node:
    """A part of the original whose keys are taken one by one; none may be left over."""

    def __init__(self, values: Any, path: str) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path or 'the file'} is {values!r}, keys and values are needed.")
        self.values, self.path = dict(values), path

    @property
    def name(self) -> str:
        """Class or function of its target; "" where it has none of the original."""
        target = self.values.get(TARGET)
        return short_name(str(target)) if is_original(target) else ""

    def take(self, key: str, default: Any = _NEEDED) -> Any:
        value = self.values.pop(key, default)
        if value is _NEEDED:
            raise ConfigError(f"{self.where(key)} has no value and is needed. Add it to the file.")
        return value

    def child(self, *keys: str) -> _Node:
        """The part under the first of the keys that is there."""
        key = next((key for key in keys if key in self.values), keys[0])
        return _Node(self.take(key), self.where(key))

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.values.pop(key, None)

    def finish(self) -> None:
        """Refuse what was not taken."""
        left = [key for key in self.values if str(key).strip('"') not in _WITHOUT_MEANING]
        left.remove(TARGET) if TARGET in left else None
        if left:
            raise ConfigError(
                f"{self.where(left[0])} is not a key that can be translated. Leave it out, and set "
                "what it means by hand."
            )

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def translate_original(values: Mapping[str, Any]) -> Values:
    """Values of ours that build what a model file of the original describes.

    Args:
        values: plain keys and values of the file: one with ``mllm``, or an SDXL adapter.

    Returns:
        ``models``, and as far as the file names them ``lora``, ``objective``, ``tokenizer``,
        ``initialise_from``.

    Raises:
        ConfigError: a part or a key that cannot be translated; names what takes its place.
    """
    root = _Node(values, "")
    if "mllm" in root.values:
        return _whole_model(root.child("mllm"))
    if root.name in ("SDXLAdapter", "SDXLAdapterWithLatentImage"):
        weights = _weights(root)
        return {"models": {"image_decoder": _image_decoder(root)}} | _start(weights)
    raise ConfigError(
        "the file is neither a model (mllm: ...) nor an SDXL adapter of the original. "
        f"{explain_original(values) or 'It holds no name of the original.'}"
    )


def _whole_model(node: _Node) -> Values:
    model = node.child("mllm_model")
    draws = model.name in ("SEED", "ContinuousLVLM")
    language, language_path, lora = _language_model(node.child("language_model"), model)
    encoder, encoder_path = _vision_encoder(model.child("vision_encoder"))
    weights = _weights(model)
    models: Values = {
        TARGET: TARGETS["SEED"] if draws else TARGETS["GeneraliazedMultimodalModels"],
        "language_model": language,
        "vision_encoder": encoder,
        "projector": _projector(model.child("projector", "input_resampler")),
        "patch_positions": bool(model.take("add_patch_pos", False)),
        "language_weight": float(model.take("lm_loss_scale", 1.0)),
    }
    pooled, squared = model.take("vit_down", True), model.take("mse", True)
    if draws:
        models["output_projector"] = _projector(model.child("output_projector", "output_resampler"))
        models["image_weight"] = float(model.take("rec_loss_scale", 1.0))
        models["image_loss"] = "mse" if squared else "cosine"
        models["drawn_features"] = {
            TARGET: "mllm_npu.models.drawn_features.DrawnFeatures",
            "width": encoder.get("width"),
            "num_tokens": models["output_projector"]["num_queries"],
            "normalize": False,
            "pooling": "sequence" if pooled else "grid",
        }
        models["image_decoder"] = None
    frozen = bool(model.take("freeze_vision_encoder", True))
    model.drop("vocab_size", "resampler_name", "discrete_model")
    model.finish()
    trainable = ["*", "!vision_encoder.*"] if frozen else ["*"]
    if lora is not None:
        trainable = [
            *(f"language_model.*{name}*" for name in ("lora_", "norm", "embed_tokens", "lm_head")),
            "*projector.*",
            *(["patch_pos_embed"] if models["patch_positions"] else []),
            *([] if frozen else ["vision_encoder.*"]),
        ]
    found: Values = {"models": models, "objective": {"trainable": trainable}}
    if lora is not None:
        found["lora"] = lora
    if weights is not None:
        # The whole model's weights come last and win over those of its parts.
        parts = [path for path in (language_path, encoder_path) if path]
        found |= {"initialise_from": [*parts, weights]}
    if "tokenizer" in node.values:
        tokenizer = node.child("tokenizer")
        found["tokenizer"] = {
            TARGET: TARGETS["AutoTokenizer"],
            "path": tokenizer.take("pretrained_model_name_or_path"),
        }
    return found


def _language_model(node: _Node, model: _Node) -> tuple[Values, str | None, Values | None]:
    """The language model, its folder, and its low-rank updates."""
    lora: Values | None = None
    vocab_size = node.take("vocab_size", None) or model.values.get("vocab_size")
    if node.name == "get_peft_model_with_resize_embedding":
        if "peft_config" in node.values:
            lora = _lora(node.child("peft_config"))
        inner = node.child("model")
        node.finish()
        node = inner
    path = node.take("pretrained_model_name_or_path")
    dtype = str(node.take("torch_dtype", "float32")).rpartition(".")[2]
    node.finish()
    built: Values = {TARGET: TARGETS["LlamaForCausalLM"], "path": path, "dtype": dtype}
    if vocab_size is not None:
        built["vocab_size"] = int(vocab_size)
    return built, path, lora


def _lora(node: _Node) -> Values:
    built = {
        TARGET: TARGETS["LoraConfig"],
        "rank": int(node.take("r")),
        "alpha": float(node.take("lora_alpha")),
        "dropout": float(node.take("lora_dropout", 0.0)),
        "targets": [f"*.{name}" for name in node.take("target_modules")],
    }
    node.drop("modules_to_save", "task_type")
    node.finish()
    return built


def _vision_encoder(node: _Node) -> tuple[Values, str | None]:
    """The vision encoder and its weights."""
    path = _weights(node)
    if node.name == "SigLIPVisionEncoder":
        node.drop("hidden_dim", "output_dim")
        node.finish()
        return {TARGET: TARGETS["SigLIPVisionEncoder"], "path": path}, path
    if node.name != "VisionTransformerWithAttnPool":
        raise ConfigError(
            f"{node.where(TARGET)} is {node.values.get(TARGET)!r}, which cannot be translated. "
            "Choose models/vision_encoder=... by hand."
        )
    built: Values = {
        TARGET: TARGETS["VisionTransformerWithAttnPool"],
        "tile_size": int(node.take("image_size", 448)),
        "patch_size": int(node.take("patch_size", 14)),
        "hidden_width": int(node.take("width", 1664)),
        "num_layers": int(node.take("layers", 48)),
        "num_heads": int(node.take("heads", 16)),
        "mlp_ratio": float(node.take("mlp_ratio", 4.9231)),
        "num_tokens": int(node.take("n_queries", 256)),
        "width": int(node.take("output_dim", 4096)),
        "patch_positions": bool(node.take("patch_pos", False)),
        "path": path,
    }
    node.finish()
    return built, path


def _projector(node: _Node) -> Values:
    if node.name not in ("AttentionResampler", "Resampler"):
        raise ConfigError(
            f"{node.where(TARGET)} is {node.values.get(TARGET)!r}, which cannot be translated: "
            f"{TARGETS.get(node.name, 'models/projector=...')} takes the numbers of tokens before "
            "and after it. Choose models/projector=mlp or average_pool by hand."
        )
    width = int(node.take("embed_dim"))
    built: Values = {
        TARGET: TARGETS["AttentionResampler"],
        "input_dim": int(node.take("kv_dim", None) or width),
        "output_dim": width,
        "num_queries": int(node.take("grid_size")) ** 2,
        "num_heads": int(node.take("num_heads")),
    }
    node.finish()
    return built


def _image_decoder(node: _Node) -> Values:
    resampler = node.child("resampler")
    sizes = {
        key: resampler.take(key)
        for key in ("dim", "depth", "dim_head", "heads", "num_queries", "embedding_dim")
    }
    built: Values = {
        TARGET: TARGETS[node.name],
        "width": int(sizes["embedding_dim"]),
        "num_tokens": 64 if node.take("vit_down", False) else 256,
        "resampler": {
            TARGET: TARGETS["ResamplerXLV2"],
            **sizes,
            "output1_dim": int(resampler.take("output1_dim", 768)),
            "output2_dim": int(resampler.take("output2_dim", 1280)),
            "ff_mult": int(resampler.take("ff_mult", 4)),
            "normalize": "tokens" if resampler.take("normalize", True) else False,
        },
    }
    resampler.finish()
    node.drop("full_ft", "set_trainable_late", "unet")
    node.finish()
    return built


def _weights(node: _Node) -> str | None:
    """The path under whatever key it has."""
    found = [node.take(key) for key in _WEIGHTS if key in node.values]
    return str(found[0]) if found and found[0] else None


def _start(weights: str | None) -> Values:
    return {} if weights is None else {"initialise_from": [weights]}
