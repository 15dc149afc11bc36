"""The MLP and the pooling projector against the original's."""

import pytest

from mllm_npu.models.projector.average_pool import AveragePoolProjector
from mllm_npu.models.projector.mlp import MLPProjector

GOLDEN = "c_mlp_pooling"


def test_mlp(golden, take, deviation):
    tensors, _ = golden(GOLDEN)
    projector = MLPProjector(input_dim=32, output_dim=24, num_queries=5)
    projector.load_state_dict(take(tensors, "w.mlp."))
    deviation(GOLDEN, projector(tensors["in.mlp.x"]).detach(), tensors["out.mlp.y"], atol=1e-6)


def test_pooling(golden, take, deviation):
    tensors, _ = golden(GOLDEN)
    cases = sorted({key.split(".")[1] for key in tensors if key.startswith("in.pool")})
    assert cases or pytest.fail("no pooling case is recorded")
    for case in cases:
        given, expected = tensors[f"in.{case}.x"], tensors[f"out.{case}.y"]
        projector = AveragePoolProjector(
            input_dim=given.shape[2],
            output_dim=expected.shape[2],
            num_queries=expected.shape[1],
            num_tokens=given.shape[1],
        )
        projector.load_state_dict(take(tensors, f"w.{case}."))
        deviation(GOLDEN, projector(given).detach(), expected, atol=1e-6, what=case)
