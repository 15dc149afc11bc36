"""Tiny configs of many families, each with what is special about it."""

import pytest

SHARED = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SHARED, "num_key_value_heads": 2}
HEADED = {**GROUPED, "head_dim": 8}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 50}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
FALCON = {key: value for key, value in SHARED.items() if key != "intermediate_size"}

PACKED = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": HEADED,
    "mistral": {**GROUPED, "sliding_window": 5},
    "gemma": HEADED,
    "gemma2": {**HEADED, "query_pre_attn_scalar": 8, "sliding_window": 5},
    "phi3": GROUPED,
    "gpt_neox": SHARED,
    "opt": {**FALCON, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gpt2": GPT2,
    "cohere": GROUPED,
    "granite": {**GROUPED, "logits_scaling": 4.0},
}
PER_SEQUENCE = {
    "falcon": FALCON,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 50, "state_size": 4},
    "llama": GROUPED,
}


@pytest.fixture
def family_config():
    """The tiny config of a family, with changes."""

    def make(family, **changes):
        return {**(PACKED | PER_SEQUENCE)[family], "model_type": family, **changes}

    return make
