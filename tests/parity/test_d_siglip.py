"""The SigLIP wrapper against the original's."""

from safetensors.torch import save_file

from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.models.weights import load_weights

GOLDEN = "d_siglip"


def test_features(golden, take, deviation, tmp_path):
    """Loaded by its recorded names; the pooling head is known and not needed."""
    tensors, meta = golden(GOLDEN)
    known = {k: v for k, v in meta["config"].items() if k != "transformers_version"}
    encoder = HuggingFaceVisionEncoder(config=known).eval()
    weights = take(tensors, "w.")
    save_file({f"vision_encoder.{k}": v for k, v in weights.items()}, tmp_path / "w.safetensors")
    report = load_weights(encoder, tmp_path / "w.safetensors")
    assert all("head." in name for name in report.unused)
    features = encoder((tensors["in.x"] * 0.5 + 0.5) * 255)
    deviation(GOLDEN, features.detach(), tensors["out.y"], atol=1e-5)
