"""Each patch is encoded by itself."""

import torch

from mllm_npu.models.vision_encoder.patch_mlp import PatchMLP


def test_a_patch_changes_its_own_feature_alone():
    encoder = PatchMLP(width=8, num_tokens=4, tile_size=8)
    tiles = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    tiles[1, :, :4, 4:] = 200
    dark, light = encoder(tiles)
    assert dark.shape == (4, 8)
    assert (dark != light).any(-1).tolist() == [False, True, False, False]
    assert len(encoder.sharding_units()) == 2
