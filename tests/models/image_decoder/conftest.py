"""The smallest SDXL-style decoders, as their tests share them."""

import pytest
import torch

from mllm_npu.models.image_decoder.resampler import ResamplerXLV2
from mllm_npu.models.image_decoder.sdxl import SDXLImageDecoder
from mllm_npu.models.image_decoder.sdxl_edit import SDXLEditImageDecoder

UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 1,
    "attention_head_dim": [1, 2],
    "cross_attention_dim": 12,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 31,
}
VAE = {
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "scaling_factor": 0.5,
}


@pytest.fixture(scope="session")
def make_sdxl():
    """A decoder of 8-pixel pictures from features of width 6; the same weights for a seed."""

    def make(*, edit=False, seed=0, **changes):
        torch.manual_seed(seed)
        options = {
            "width": 6,
            "num_tokens": 4,
            "picture_size": 8,
            "resampler": ResamplerXLV2(
                dim=8,
                depth=1,
                dim_head=4,
                heads=2,
                num_queries=3,
                embedding_dim=6,
                output1_dim=5,
                output2_dim=7,
            ),
            "unet": UNET,
            "vae": VAE,
        }
        kind = SDXLEditImageDecoder if edit else SDXLImageDecoder
        return kind(**options | changes).eval()

    return make


@pytest.fixture
def pictures():
    """Two pictures of 8 pixels."""
    return torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
