import pytest
from transformers import AutoConfig

from mllm_npu.errors import ConfigError
from mllm_npu.models.language_model.families import (
    logit_rule,
    refuse_blocks,
    require_family,
    require_options,
)


def test_options_that_do_not_exist_are_refused():
    require_options("packed", "mean_times_3")
    with pytest.raises(ConfigError, match="attention='flash'; choose packed or per_sequence"):
        require_options("flash", "mean_times_3")
    with pytest.raises(ConfigError, match="new_rows='zeros'; choose mean_times_3 or mean_resizing"):
        require_options("packed", "zeros")


def test_blocks_are_refused_only_where_there_are_any():
    refuse_blocks(())
    refuse_blocks([(), ()])
    with pytest.raises(ConfigError, match="Build it with attention=packed"):
        refuse_blocks([(), ((0, 2),)])


def test_families_are_told_by_their_configuration():
    require_family(AutoConfig.for_model("llama"), "packed")
    require_family(AutoConfig.for_model("bloom"), "per_sequence")
    with pytest.raises(ConfigError, match="build it with attention=per_sequence"):
        require_family(AutoConfig.for_model("bloom"), "packed")
    with pytest.raises(ConfigError, match="no causal language model"):
        require_family(AutoConfig.for_model("siglip_vision_model"), "packed")
    uneven = AutoConfig.for_model("llama", num_attention_heads=4, num_key_value_heads=3)
    with pytest.raises(ConfigError, match="key-value heads that divide"):
        require_family(uneven, "packed")


def test_what_a_family_does_behind_its_head():
    assert logit_rule(AutoConfig.for_model("llama")) == (1.0, None)
    assert logit_rule(AutoConfig.for_model("granite", logits_scaling=4.0)) == (0.25, None)
    assert logit_rule(AutoConfig.for_model("cohere", logit_scale=0.5)) == (0.5, None)
    assert logit_rule(AutoConfig.for_model("gemma2", final_logit_softcapping=30.0)) == (1.0, 30.0)
