"""One layer learns to draw."""

import torch

from mllm_npu.models.image_decoder.linear import LinearImageDecoder


def test_it_learns_the_picture_of_its_features():
    decoder = LinearImageDecoder(width=4, num_tokens=2, picture_size=8)
    features, pictures = torch.randn(2, 2, 4), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pictures[0] = 255
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    for _ in range(100):
        loss = decoder.loss(decoder.encode_pictures(pictures), features)
        assert loss.shape == (2,)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    drawn = decoder.decode(features, steps=1, guidance=1.0)
    assert (drawn.int() - pictures.int()).abs().max() < 20
