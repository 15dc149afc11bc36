"""Translate the names of released weights to the names of a composed model.

Known layouts, recognised by their names alone and free to be mixed: what `save_weights` writes;
``qwen_vit_G.pt``; ``pytorch_model.bin`` of mllm-npu with the names of peft before and after 0.6;
the agent, language model and de-tokenizer of SEED-X; folders of Hugging Face models and adapters,
those of the LLaVA family among them; pipelines of diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["value", "lora_A", "lora_B", "unused"]

_RENAMED = (
    # the LLaVA family, as its hub has it, and as transformers names it in memory
    (r"^(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision_encoder.vision_model."),
    (r"^(?:model\.)?multi_modal_projector\.linear_1\.", "projector.mlp.0."),
    (r"^(?:model\.)?multi_modal_projector\.linear_2\.", "projector.mlp.2."),
    (r"^(?:model\.)?image_newline$", "newline"),
    (r"^model\.language_model\.", "language_model.causal_lm.model."),
    # SEED-X: agent/pytorch_model.bin
    (r"^llm\.", "language_model."),
    (r"^input_resampler\.", "projector."),
    (r"^output_resampler\.", "output_projector."),
    # detokenizer/pytorch_model.bin and pipelines of diffusers
    (r"^(unet|resampler|vae)\.", r"image_decoder.\1."),
    # a wrapped language model, inside a multimodal one and alone
    (r"^(language_model\.)?base_model\.model\.", "language_model.causal_lm."),
    (r"^language_model\.(?!causal_lm\.)", "language_model.causal_lm."),
    (r"^vision_encoder\.vision_model\.vision_model\.", "vision_encoder.vision_model."),
    # peft from 0.6 on names what it wraps, and what it trains whole
    (r"\.base_layer\.", "."),
    (r"\.modules_to_save\.(default\.)?", "."),
)
_UPDATE = re.compile(r"\.lora_([AB])\.(?:\w+\.)?weight$")
_LEFTOVERS = re.compile(
    r"\.original_module\.|rotary_emb\.inv_freq$|(^|\.)position_ids$|num_batches_tracked$"
    r"|(^|\.)vision_model\.head\.|^text_model\.|^logit_(scale|bias)$|(visual|text)_projection\."
)
"""What released files hold beside the weights: tables that are computed, copies from before a
training, heads and towers that no part here has."""
_HOMES = (
    "",
    "language_model.",
    "language_model.causal_lm.",
    "causal_lm.",
    "vision_encoder.",
    "vision_encoder.vision_model.",
    "vision_model.",
    "image_decoder.",
    "image_decoder.unet.",
    "image_decoder.vae.",
)
"""Where names without a prefix may belong, and what a part alone does not have."""
_LANGUAGE_HOME = "language_model.causal_lm."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored value goes.

    Args:
        name: of the model; the updated weight's for a low-rank update, the stored one where unused.
        role: what it is there.
    """

    name: str
    role: Role


def translate(keys: Collection[str], slots: Collection[str]) -> dict[str, Place]:
    """Give every stored name its place in a model.

    Args:
        keys: names of one file or folder.
        slots: names of the model. It may be a part alone, whose names lack the part's prefix.

    Returns:
        A place for every key. Names that the model lacks keep the role "value"; where the model
        lacks their whole part they are "unused".
    """
    known = frozenset(slots)
    named = {key: Place(key, "value") if key in known else _canonical(key) for key in keys}
    home, cut = _settle([place.name for place in named.values()], known)
    # A part alone has no parts inside: whatever else a file holds belongs to others.
    parts = {name.partition(".")[0] for name in known}
    return {
        key: _put(place, home, cut, known, parts) if key not in known else place
        for key, place in named.items()
    }


def _canonical(key: str) -> Place:
    """The name as a composed model would have it, and what the value is."""
    if _LEFTOVERS.search(key):
        return Place(key, "unused")
    update = _UPDATE.search(key)
    name = f"{key[: update.start()]}.weight" if update else key
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    if update is None:
        return Place(name, "value")
    return Place(name, "lora_A" if update[1] == "A" else "lora_B")


def _settle(names: Iterable[str], known: frozenset[str]) -> tuple[str, str]:
    """The prefix to put before names, or to cut off them, under which most are known."""
    listed = list(names)
    hits: dict[tuple[str, str], int] = {}
    for prefix in _HOMES:
        hits[prefix, ""] = sum(prefix + name in known for name in listed)
        hits["", prefix] = sum(
            name.startswith(prefix) and name.removeprefix(prefix) in known for name in listed
        )
    # The first of equals, which changes nothing, wins.
    return max(hits, key=lambda way: hits[way])


def _put(place: Place, home: str, cut: str, known: frozenset[str], parts: Collection[str]) -> Place:
    if place.role == "unused":
        return place
    if cut:
        if not place.name.startswith(cut):
            return Place(place.name, "unused")
        return Place(place.name.removeprefix(cut), place.role)
    name = place.name if place.name in known else home + place.name
    if name not in known and _LANGUAGE_HOME + place.name in known:
        # LLaVA in memory: the head stands outside of the language model.
        name = _LANGUAGE_HOME + place.name
    first = name.partition(".")[0]
    of_another_part = first in _PARTS and first not in parts
    return Place(name, "unused" if of_another_part else place.role)


_PARTS = frozenset(
    {
        "vision_encoder",
        "projector",
        "language_model",
        "output_projector",
        "image_decoder",
        "drawn_features",
        "patch_pos_embed",
        "newline",
    }
)


def examples(keys: Mapping[str, object] | Collection[str], count: int = 3) -> str:
    """A few of many names, for messages."""
    listed = sorted(keys)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
