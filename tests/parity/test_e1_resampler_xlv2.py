"""The resampler of the de-tokenizer against the original's."""

import pytest

from mllm_npu.models.image_decoder.resampler import ResamplerXLV2

GOLDEN = "e1_resampler_xlv2"


@pytest.mark.parametrize(("normalize", "case"), [(False, "v2"), ("tokens", "v2norm")])
def test_text_tokens_and_pooled_text(golden, take, deviation, normalize, case):
    """``normalize=True`` of the original scales over the tokens: a defect that can be had."""
    tensors, meta = golden(GOLDEN)
    resampler = ResamplerXLV2(**meta["args"] | {"normalize": normalize}).eval()
    resampler.load_state_dict(take(tensors, "w."))
    tokens, pooled = resampler(tensors["in.x"])
    deviation(GOLDEN, tokens, tensors[f"out.{case}.prompt"])
    deviation(GOLDEN, pooled, tensors[f"out.{case}.pooled"])
