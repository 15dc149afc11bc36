"""Build the smallest models and batches that have every part, for tests and examples.

Shape letters: T packed tokens, Q tokens per read tile, P tokens per drawn picture, S pixels of an
edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from mllm_npu.batch import Batch
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.flow import FlowImageDecoder
from mllm_npu.models.interfaces import Projector
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.projector.average_pool import AveragePoolProjector
from mllm_npu.models.projector.mlp import MLPProjector
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder

TILE_SIZE = 16
NUM_QUERIES = 4
"""Tokens of a read tile and of a drawn picture."""
VOCAB_SIZE = 64

_VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
VISION_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "siglip": {
        **_VISION,
        "model_type": "siglip_vision_model",
        "image_size": TILE_SIZE,
        "intermediate_size": 32,
    },
    "siglip2": {
        **_VISION,
        "model_type": "siglip2_vision_model",
        "num_patches": 16,
        "intermediate_size": 32,
    },
    "clip": {
        **_VISION,
        "model_type": "clip_vision_model",
        "image_size": TILE_SIZE,
        "intermediate_size": 32,
    },
    "dinov2": {**_VISION, "model_type": "dinov2", "image_size": TILE_SIZE, "mlp_ratio": 2},
}

_LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_LANGUAGE, "num_key_value_heads": 2}
LANGUAGE_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_GROUPED, "model_type": "llama", "tie_word_embeddings": True},
    "qwen3": {**_GROUPED, "model_type": "qwen3", "head_dim": 8},
    "mistral": {**_GROUPED, "model_type": "mistral", "sliding_window": None},
    "gpt_neox": {**_LANGUAGE, "model_type": "gpt_neox"},
}


def tiny_vision_encoder(family: str = "siglip") -> HuggingFaceVisionEncoder:
    """One of `VISION_CONFIGS`: 16 tokens of width 16 from a tile of 16 pixels."""
    return HuggingFaceVisionEncoder(config=VISION_CONFIGS[family])


def tiny_language_model(family: str = "llama") -> HuggingFaceLanguageModel:
    """One of `LANGUAGE_CONFIGS`: two layers of width 32, 64 tokens."""
    return HuggingFaceLanguageModel(config=LANGUAGE_CONFIGS[family])


def tiny_projector(
    kind: Literal["attention", "mlp", "pool"], *, input_dim: int, output_dim: int, num_tokens: int
) -> Projector:
    """A projector that gives `NUM_QUERIES` tokens."""
    sizes: dict[str, Any] = {
        "input_dim": input_dim,
        "output_dim": output_dim,
        "num_queries": NUM_QUERIES,
    }
    if kind == "attention":
        return AttentionResampler(**sizes)
    if kind == "mlp":
        return MLPProjector(**sizes, num_tokens=num_tokens)
    return AveragePoolProjector(**sizes, num_tokens=num_tokens)


def tiny_mllm(
    *,
    vision: str = "siglip",
    projector: Literal["attention", "mlp", "pool"] = "attention",
    language: str = "llama",
) -> GeneralizedMultimodalModel:
    """A model that reads."""
    return GeneralizedMultimodalModel(
        **_reading_parts(vision, projector, language), patch_positions=True
    )


def tiny_seed(
    *,
    vision: str = "siglip",
    projector: Literal["attention", "mlp", "pool"] = "attention",
    language: str = "llama",
    normalize: bool = True,
) -> SEED:
    """A model that reads and draws pictures of 16 pixels."""
    parts = _reading_parts(vision, projector, language)
    width = parts["vision_encoder"].width
    return SEED(
        **parts,
        patch_positions=True,
        output_projector=AttentionResampler(
            input_dim=parts["language_model"].width, output_dim=width, num_queries=NUM_QUERIES
        ),
        image_decoder=FlowImageDecoder(
            width=width,
            num_tokens=NUM_QUERIES,
            picture_size=TILE_SIZE,
            channels=1,
            block_channels=(8, 16),
        ),
        drawn_features=DrawnFeatures(width=width, num_tokens=NUM_QUERIES, normalize=normalize),
    )


def tiny_batch(*, reads: bool = True, draws: bool = True, seed: int = 0) -> Batch:
    """A pack of three sequences: one that reads a tile, one that draws a picture, one of text.

    What is not asked for moves to a blank last sequence without targets, as in every real batch.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = (10, 12, 7, 2 * NUM_QUERIES)
    ends = tuple(sum(lengths[: place + 1]) for place in range(len(lengths)))
    starts = (0, *ends[:-1])
    slots = torch.arange(NUM_QUERIES)[None]
    read_sequence, draw_sequence = 0 if reads else 3, 1 if draws else 3
    ids = torch.randint(4, VOCAB_SIZE, (ends[-1],), generator=generator)
    targets = torch.cat([torch.arange(end - 3, end - 1) for end in ends[:3]])
    return Batch(
        input_ids=ids,
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        sequence_ends=ends,
        target_positions=targets,
        targets=ids[targets + 1],
        target_sequences=torch.arange(3).repeat_interleave(2),
        tiles=torch.randint(
            0, 256, (2, 3, TILE_SIZE, TILE_SIZE), generator=generator, dtype=torch.uint8
        ),
        tile_positions=torch.full((2, 2), 0.5),
        read_tiles=torch.tensor([0]),
        read_slots=slots + starts[read_sequence] + (1 if reads else 0),
        draw_tiles=torch.tensor([1]),
        draw_slots=slots + starts[draw_sequence] + (4 if draws else NUM_QUERIES),
        draw_weights=torch.tensor([1.0 if draws else 0.0]),
        draw_sequences=torch.tensor([draw_sequence]),
        num_drawn=int(draws),
        keys=("read", "draw", "text", ""),
        sources=("tiny", "tiny", "tiny", ""),
        tasks=("caption", "caption", "pure_text", ""),
    )


def _reading_parts(
    vision: str, projector: Literal["attention", "mlp", "pool"], language: str
) -> dict[str, Any]:
    encoder, language_model = tiny_vision_encoder(vision), tiny_language_model(language)
    return {
        "vision_encoder": encoder,
        "language_model": language_model,
        "projector": tiny_projector(
            projector,
            input_dim=encoder.width,
            output_dim=language_model.width,
            num_tokens=encoder.num_tokens,
        ),
    }
