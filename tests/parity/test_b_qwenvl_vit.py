"""The vision encoder of Qwen-VL against the original's."""

import pytest

GOLDEN = "b_qwenvl_vit"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_features_and_the_states_on_the_way(golden, take, vision_encoder, deviation, number):
    tensors, meta = golden(GOLDEN)
    case = meta["cases"][number]
    if case is None:
        pytest.skip("this case is not among the recorded vectors that are given")
    encoder = vision_encoder(case["args"]).eval()
    encoder.load_state_dict(take(tensors, f"w.{number}."))
    seen = {}
    encoder.ln_pre.register_forward_hook(lambda _, __, out: seen.update(ln_pre=out))
    encoder.transformer.resblocks[-1].register_forward_hook(
        lambda _, __, out: seen.update(trunk=out)
    )
    features = encoder.encode_pixels(
        tensors[f"in.{number}.x"], tensors.get(f"in.{number}.patch_positions")
    )
    deviation(GOLDEN, features, tensors[f"out.{number}.y"], atol=1e-5)
    for name, value in seen.items():
        deviation(GOLDEN, value[:, :8], tensors[f"out.{number}.{name}"], atol=1e-5, what=name)
