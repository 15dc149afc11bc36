"""Whether a processor fits the model it feeds: ids, slots, tiles and lengths."""

from __future__ import annotations

from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.models.interfaces import LanguageModel
from mllm_npu.processing.processor import Processor


def check_fit(model: Any, processor: Processor) -> None:
    """Refuse a processor whose ids, slots, tiles or lengths do not fit the model.

    Raises:
        ConfigError: with both numbers.
    """
    language_model = getattr(model, "language_model", None)
    if language_model is not None:
        _check_language(language_model, processor)
    projector, drawn, decoder = (
        getattr(model, name, None) for name in ("projector", "drawn_features", "image_decoder")
    )
    tile_size = model.vision_encoder.tile_size
    pairs = [("any_resolution.tile_size", processor.any_resolution.tile_size, tile_size)]
    if projector is not None:
        pairs.append(("num_read_tokens", processor.num_read_tokens, projector.num_queries))
    if drawn is not None:
        pairs.append(("num_drawn_tokens", processor.num_drawn_tokens, drawn.num_tokens))
    if decoder is not None and processor.picture_size is not None:
        pairs.append(("picture_size", processor.picture_size, decoder.picture_size))
    for name, given, needed in pairs:
        if given != needed:
            raise ConfigError(
                f"processor.{name}={given} does not fit the model, which needs {needed}. "
                f"Set processor.{name}={needed}."
            )
    _check_joining(model, processor)


def _check_joining(model: Any, processor: Processor) -> None:
    """Joined tiles need a newline, and a newline is of no use without them."""
    joins = bool(getattr(processor.any_resolution, "joins", False))
    has_newline = getattr(model, "newline", None) is not None
    if joins != has_newline:
        told = "joins the tokens of tiles" if joins else "leaves every tile by itself"
        raise ConfigError(
            f"processor.any_resolution {told}, and the model has "
            f"{'a' if has_newline else 'no'} newline to end rows with. Set "
            f"models.newline={str(joins).lower()}, or choose another any_resolution."
        )
    if joins and getattr(model, "bidirectional_images", False):
        raise ConfigError(
            "bidirectional_images=true was asked for with joined tiles, whose tokens are no tile's "
            "alone. Set it to false."
        )


def _check_language(language_model: LanguageModel, processor: Processor) -> None:
    vocab_size, num_ids = language_model.vocab_size, len(processor.tokenizer)
    if num_ids > vocab_size:
        raise ConfigError(
            f"the tokenizer has {num_ids} tokens, the language model {vocab_size} rows. "
            "Set models.language_model.vocab_size, or take the tokenizer of the model."
        )
    longest = language_model.max_tokens
    if longest is not None and processor.max_tokens > longest:
        raise ConfigError(
            f"processor.max_tokens={processor.max_tokens} was asked for, the language model takes "
            f"at most {longest} positions. Lower the first, or choose a model of more positions."
        )
