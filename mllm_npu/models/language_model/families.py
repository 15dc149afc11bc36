"""Which language models of Hugging Face can run here, and what is special about a family.

Everything is read from the configuration, before a model is built.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from mllm_npu.batch import Blocks
from mllm_npu.errors import ConfigError

PART = "HuggingFaceLanguageModel"
"""What messages call it."""
_HEADS = ("attention", "key_value")
_ATTENTIONS = ("packed", "per_sequence")
_NEW_ROWS = ("mean_times_3", "mean_resizing")


def require_options(attention: str, new_rows: str) -> None:
    """Refuse names of options that do not exist.

    Raises:
        ConfigError: one of them.
    """
    asked = (("new_rows", new_rows, _NEW_ROWS), ("attention", attention, _ATTENTIONS))
    for name, value, known in asked:
        if value not in known:
            raise ConfigError(
                f"{PART} was asked for {name}={value!r}; choose {' or '.join(known)}."
            )


def refuse_blocks(blocks: Sequence[object] | Blocks) -> None:
    """Refuse tokens that see each other, where the family's own layers attend.

    Raises:
        ConfigError: there are any.
    """
    if any(blocks):
        raise ConfigError(
            "bidirectional_images=true was asked for, and the language model was built with "
            "attention=per_sequence, whose layers are causal. Build it with attention=packed."
        )


def require_family(config: PreTrainedConfig, attention: str) -> None:
    """Refuse a configuration of another kind of model, or one that cannot attend in this way.

    Args:
        config: of the whole model.
        attention: packed or per_sequence.

    Raises:
        ConfigError: with what to do instead.
    """
    text = config.get_text_config()
    heads, shared = (getattr(text, f"num_{kind}_heads", None) for kind in _HEADS)
    if heads and shared and heads % shared:
        raise ConfigError(
            f"{PART} was given num_attention_heads={heads} and num_key_value_heads={shared}; give "
            "key-value heads that divide the attention heads."
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{PART} was given model_type={config.model_type!r}, which is no causal language "
            "model of transformers."
        )
    family = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    chunked = getattr(config.get_text_config(), "attention_chunk_size", None) is not None
    if attention == "packed" and (chunked or not family._supports_attention_backend):
        raise ConfigError(
            f"model_type={config.model_type!r} cannot take packed attention (its layers do not "
            "use transformers' AttentionInterface, or attend in chunks); build it with "
            "attention=per_sequence."
        )


def logit_rule(config: PreTrainedConfig) -> tuple[float, float | None]:
    """Factor and soft cap that the family applies behind its head."""
    factor = (
        getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
    )
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return float(factor) / float(divisor), getattr(config, "final_logit_softcapping", None)
