"""Refuse parts whose widths and token numbers do not fit together, before anything runs."""

from __future__ import annotations

import math

from mllm_npu.errors import ConfigError
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.interfaces import ImageDecoder, LanguageModel, Projector, VisionEncoder


def require_reading(
    language_model: LanguageModel, vision_encoder: VisionEncoder, projector: Projector
) -> None:
    """Refuse parts of a reading model that do not fit.

    Raises:
        ConfigError: names both numbers.
    """
    _require(
        "projector.input_dim", projector.input_dim, "vision_encoder.width", vision_encoder.width
    )
    _require(
        "projector.output_dim", projector.output_dim, "language_model.width", language_model.width
    )
    _require_tokens("projector", projector, "vision_encoder.num_tokens", vision_encoder.num_tokens)


def require_drawing(
    language_model: LanguageModel,
    vision_encoder: VisionEncoder,
    output_projector: Projector,
    image_decoder: ImageDecoder | None,
    drawn_features: DrawnFeatures,
) -> None:
    """Refuse parts of a drawing model that are missing or do not fit; it may lack the decoder.

    Raises:
        ConfigError: names the part, or both numbers.
    """
    parts = {"output_projector": output_projector, "drawn_features": drawn_features}
    for name, part in parts.items():
        if part is None:
            raise ConfigError(
                f"SEED needs {name} and got none; give one, or use GeneralizedMultimodalModel, "
                "which only reads."
            )
    require_decoder(vision_encoder, image_decoder, drawn_features)
    _require(
        "output_projector.input_dim",
        output_projector.input_dim,
        "language_model.width",
        language_model.width,
    )
    _require(
        "output_projector.output_dim",
        output_projector.output_dim,
        "drawn_features.width",
        drawn_features.width,
    )
    _require(
        "output_projector.num_queries",
        output_projector.num_queries,
        "drawn_features.num_tokens",
        drawn_features.num_tokens,
    )
    _require_tokens(
        "output_projector", output_projector, "drawn_features.num_tokens", drawn_features.num_tokens
    )


def require_decoder(
    vision_encoder: VisionEncoder,
    image_decoder: ImageDecoder | None,
    drawn_features: DrawnFeatures,
) -> None:
    """Refuse features that the encoder does not give, and a decoder that cannot draw from them.

    Raises:
        ConfigError: names both numbers.
    """
    _require(
        "drawn_features.width", drawn_features.width, "vision_encoder.width", vision_encoder.width
    )
    if drawn_features.num_tokens > vision_encoder.num_tokens:
        raise ConfigError(
            f"drawn_features.num_tokens={drawn_features.num_tokens} cannot be pooled from "
            f"vision_encoder.num_tokens={vision_encoder.num_tokens}; ask for fewer."
        )
    if image_decoder is None:
        return
    _require(
        "image_decoder.width", image_decoder.width, "drawn_features.width", drawn_features.width
    )
    _require(
        "image_decoder.num_tokens",
        image_decoder.num_tokens,
        "drawn_features.num_tokens",
        drawn_features.num_tokens,
    )


def require_weight(name: str, weight: float) -> None:
    """Refuse a factor of a loss that would reward what the loss measures.

    Raises:
        ConfigError: it is negative or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ConfigError(f"{name}={weight} was asked for; give a factor from 0 on.")


def _require(name: str, value: int, other_name: str, other_value: int) -> None:
    if value != other_value:
        raise ConfigError(
            f"{name}={value} does not fit {other_name}={other_value}; make them equal."
        )


def _require_tokens(name: str, projector: Projector, other_name: str, num_given: int) -> None:
    if projector.num_tokens is not None:
        _require(f"{name}.num_tokens", projector.num_tokens, other_name, num_given)
