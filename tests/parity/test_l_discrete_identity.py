"""Features that go to the image decoder as they are: the original's discrete identity."""

from mllm_npu.models.drawn_features import DrawnFeatures

GOLDEN = "l_discrete_identity"


def test_features_pass_unchanged(golden, deviation):
    tensors, meta = golden(GOLDEN)
    identity = DrawnFeatures(width=4, num_tokens=3, normalize=False, pooling="sequence")
    deviation(GOLDEN, identity(tensors["in.x"]), tensors["out.y"], atol=0)
    assert list(identity.state_dict()) == meta["state_dict_keys"]
