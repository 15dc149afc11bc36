"""Which parts of a model an objective runs, on what, and with which gradients; what each costs.

Shape letters: I tiles, H W pixels, K vision tokens, V vision width, T packed tokens, D language
width, G drawn pictures, P tokens per drawn picture, S pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mllm_npu.models.interfaces import ImageDecoder, LanguageModel, VisionEncoder
from mllm_npu.train.objectives.contrast import Contrast, PictureTexts
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.objectives.vision import VisionObjective
from mllm_npu.train.part_costs import NO_COST, Input, PartCost, estimate_part, measure_part

PARTS = (
    "vision_encoder",
    "projector",
    "language_model",
    "head",
    "output_projector",
    "picture_encoder",
    "image_decoder",
    "text_tower",
    "contrast",
    "reconstruction",
)
"""Names of all parts; the head scores the vocabulary, the picture encoder is the decoder's own."""

Terms = Mapping[str, PartCost]
"""Costs of a part by unit: per tile, per token, per token that a token sees, ..."""


def find_costs(objective: Objective) -> dict[str, Terms]:
    """Costs of the parts an objective runs, by name in ``PARTS``; none for an unknown objective."""
    match objective:
        case MultimodalObjective():
            parts = _reading(objective.model)
            parts["head"] = _head(objective.model.language_model, parts)
            if objective.draws:
                parts["output_projector"] = _predicting(objective.model, parts)
            return parts
        case VisionObjective():
            return _seeing(objective)
        case DecoderObjective():
            return _decoding(objective)
        case _:
            return {}


def _seeing(objective: VisionObjective) -> dict[str, Terms]:
    model: Any = objective.model
    if objective.contrast is None:
        parts = _reading(model)
        parts["head"] = _head(model.language_model, parts)
        if hasattr(model, "output_projector"):
            # The model predicts drawn features all the same, and their loss is thrown away.
            parts["output_projector"] = _predicting(model, parts, with_gradient=False)
    else:
        parts = {"vision_encoder": _encoding(model.vision_encoder)}
        parts |= _contrasting(objective.contrast, _features(model, parts))
    if objective.reconstruction is not None:
        size, head = model.vision_encoder.tile_size, objective.reconstruction
        pixels = Input(shape=(1, 3, size, size), dtype=torch.uint8)
        features = _features(model, parts)
        cost = measure_part(head, head, [features, pixels], num_tokens=features.shape[1])
        parts["reconstruction"] = {"tiles": cost}
    return parts


def _decoding(objective: DecoderObjective) -> dict[str, Terms]:
    """Everything in front of the image decoder runs without gradients, whatever is trained."""
    model: Any = objective.model
    if objective.predicted_share > 0:
        parts = _reading(model, with_gradient=False)
        parts["output_projector"] = _predicting(model, parts, with_gradient=False)
    else:
        parts = {"vision_encoder": _encoding(model.vision_encoder, with_gradient=False)}
    return parts | _painting(model.image_decoder)


def _reading(model: Any, *, with_gradient: bool = True) -> dict[str, Terms]:
    """Encoder, projector and language model; each gives a gradient back to what needs one."""
    parts = {"vision_encoder": _encoding(model.vision_encoder, with_gradient=with_gradient)}
    projector = measure_part(
        model.projector,
        model.projector,
        [_features(model, parts)],
        num_tokens=getattr(model.projector, "num_queries", 1),
        with_gradient=with_gradient,
    )
    places = getattr(model, "patch_pos_embed", None)
    trains_places = with_gradient and places is not None and places.requires_grad
    parts["projector"] = {"read_tiles": projector}
    parts["language_model"] = _sequences(
        model.language_model,
        needs_gradient=projector.carries_gradient or trains_places,
        with_gradient=with_gradient,
    )
    return parts


def _encoding(encoder: VisionEncoder, *, with_gradient: bool = True) -> Terms:
    tile = Input(shape=(1, 3, encoder.tile_size, encoder.tile_size), dtype=torch.uint8)
    cost = measure_part(
        encoder, encoder, [tile], num_tokens=encoder.num_tokens, with_gradient=with_gradient
    )
    return {"tiles": cost}


def _features(model: Any, parts: Mapping[str, Terms]) -> Input:
    """What comes out of the encoder for one tile, [1, K, V]."""
    return Input(
        shape=(1, model.vision_encoder.num_tokens, model.vision_encoder.width),
        needs_gradient=parts["vision_encoder"]["tiles"].carries_gradient,
    )


def _sequences(
    language_model: LanguageModel, *, needs_gradient: bool = False, with_gradient: bool = True
) -> Terms:
    """Cost per call, per token and per token it sees, of a language model without its head.

    The last grows with the square of a sequence, so that runs of one to three tokens tell all three
    apart. A sliding window is not counted as one: a longer sequence is taken to see all.
    """
    ids = Input(shape=(1,), dtype=torch.int64)
    table = measure_part(language_model, language_model.embed, [ids], with_gradient=with_gradient)
    needs_gradient = needs_gradient or table.carries_gradient

    def measure(length: int) -> PartCost:
        embeds = Input(shape=(length, language_model.width), needs_gradient=needs_gradient)

        def run(embeds_TD: Tensor, position_ids_T: Tensor) -> Tensor:
            return language_model(embeds_TD, position_ids_T=position_ids_T, sequence_ends=(length,))

        positions = Input(shape=(length,), dtype=torch.int64)
        return measure_part(language_model, run, [embeds, positions], with_gradient=with_gradient)

    one, two, three = measure(1), measure(2), measure(3)
    seen = NO_COST.plus(three.plus(two, times=-2).plus(one), times=0.5)
    token = two.plus(one, times=-1).plus(seen, times=-3)
    # Something else than attention grows in another way, and is no such sum.
    if seen.is_estimated or min(seen.forward, token.forward) < 0:
        return _estimated_sequences(language_model, needs_gradient, with_gradient)
    call = one.plus(token, times=-1).plus(seen, times=-1)
    return {"calls": call, "tokens": token, "attention": seen}


def _estimated_sequences(
    language_model: LanguageModel, needs_gradient: bool, with_gradient: bool
) -> Terms:
    """Two operations per weight and token, of all experts where there are some; and attention."""
    causal_lm: Any = getattr(language_model, "causal_lm", None)
    head = None if causal_lm is None else causal_lm.get_output_embeddings()
    tokens = estimate_part(
        language_model,
        1,
        needs_gradient,
        with_gradient=with_gradient,
        leave_out=[] if head is None else [head.weight],
    )
    config = None if causal_lm is None else causal_lm.config.get_text_config()
    num_heads = getattr(config, "num_attention_heads", None) or 0
    head_width = getattr(config, "head_dim", None) or language_model.width // max(1, num_heads)
    forward = 4.0 * num_heads * head_width * getattr(config, "num_hidden_layers", 0)
    seen = PartCost(
        forward=forward,
        backward=2 * forward if tokens.carries_gradient else 0.0,
        carries_gradient=tokens.carries_gradient,
        is_estimated=True,
    )
    return {"calls": NO_COST, "tokens": tokens, "attention": seen}


def _head(language_model: LanguageModel, parts: Mapping[str, Terms]) -> Terms:
    """Scores of the vocabulary, for the states that have a target."""
    needs_gradient = parts["language_model"]["tokens"].carries_gradient
    state = Input(shape=(1, language_model.width), needs_gradient=needs_gradient)
    return {"targets": measure_part(language_model, language_model.logits, [state])}


def _predicting(model: Any, parts: Mapping[str, Terms], *, with_gradient: bool = True) -> Terms:
    """The output projector, for the states at the slots of a drawn picture."""
    num_slots = getattr(model.drawn_features, "num_tokens", 1)
    states = Input(
        shape=(1, num_slots, model.language_model.width),
        needs_gradient=parts["language_model"]["tokens"].carries_gradient,
    )
    projector = model.output_projector
    cost = measure_part(
        projector, projector, [states], num_tokens=num_slots, with_gradient=with_gradient
    )
    return {"drawn": cost}


def _painting(decoder: ImageDecoder) -> dict[str, Terms]:
    """The image decoder's loss of a picture, and what it makes of the picture first."""
    size = decoder.picture_size
    picture = Input(shape=(1, 3, size, size), dtype=torch.uint8)
    encoder = measure_part(decoder, decoder.encode_pictures, [picture], with_gradient=False)
    encoded = Input(shape=encoder.shape or picture.shape)
    features = Input(shape=(1, decoder.num_tokens, decoder.width))

    def run(encoded_GCHW: Tensor, features_GPV: Tensor) -> Tensor:
        return decoder.loss(
            encoded_GCHW,
            features_GPV,
            conditions_GCHW=encoded_GCHW if decoder.takes_condition else None,
            empty_PV=features_GPV[0] if decoder.needs_empty else None,
        )

    loss = measure_part(decoder, run, [encoded, features], num_tokens=decoder.num_tokens)
    return {"picture_encoder": {"pictures": encoder}, "image_decoder": {"drawn": loss}}


def _contrasting(contrast: Contrast, features: Input) -> dict[str, Terms]:
    """Text tower, projections and the loss of all pairs; the last grows with their square."""
    tower = _sequences(contrast.text_tower)

    def measure(num_pairs: int) -> PartCost:
        def run(features_BKV: Tensor) -> Tensor:
            return contrast(features_BKV, _made_up_pairs(num_pairs))

        given = Input(
            shape=(num_pairs, *features.shape[1:]), needs_gradient=features.needs_gradient
        )
        cost = measure_part(contrast, run, [given]).plus(tower["calls"], times=-1)
        for unit in ("tokens", "attention"):
            cost = cost.plus(tower[unit], times=-num_pairs)
        return cost

    one, two = measure(1), measure(2)
    square = NO_COST.plus(two.plus(one, times=-2), times=0.5)
    pair = one.plus(square, times=-1)
    return {
        "text_tower": {
            "calls": tower["calls"],
            "text_tokens": tower["tokens"],
            "text_attention": tower["attention"],
        },
        "contrast": {"pairs": pair, "pair_squares": square},
    }


def _made_up_pairs(count: int) -> PictureTexts:
    """Texts of one token each, each with a tile of its own."""
    numbers = torch.arange(count)
    return PictureTexts(
        tiles_B=numbers,
        ids_L=torch.zeros_like(numbers),
        positions_L=torch.zeros_like(numbers),
        ends=tuple(range(1, count + 1)),
        text_numbers_B=numbers,
        count=count,
    )
