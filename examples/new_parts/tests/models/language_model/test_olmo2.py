"""OLMo 2 takes packed sequences."""

import torch

from mllm_npu.build import build_part
from mllm_npu.config import load_config


def test_packed_sequences_are_as_they_are_apart():
    config = load_config("training", ["models/language_model=olmo2_tiny"])
    model = build_part(config.models.language_model).eval()
    ids = torch.randint(0, 1024, (12,))
    places = torch.cat([torch.arange(7), torch.arange(5)])
    packed = model(model.embed(ids), position_ids_T=places, sequence_ends=(7, 12))
    for start, end in ((0, 7), (7, 12)):
        alone = model(
            model.embed(ids[start:end]),
            position_ids_T=places[start:end],
            sequence_ends=(end - start,),
        )
        torch.testing.assert_close(packed[start:end], alone, atol=1e-5, rtol=1e-5)
