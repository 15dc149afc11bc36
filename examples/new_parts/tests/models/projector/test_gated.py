"""A gate opens and shuts."""

import torch

from mllm_npu.models.projector.gated import GatedProjector


def test_a_shut_gate_lets_nothing_through():
    projector = GatedProjector(input_dim=4, output_dim=8, num_queries=3)
    features = torch.randn(2, 3, 4)
    assert projector(features).shape == (2, 3, 8)
    torch.nn.init.constant_(projector.gate.weight, 0)
    torch.nn.init.constant_(projector.gate.bias, -100)
    assert projector(features).abs().max() == 0
