import pytest
import torch
import torch.nn.functional as F

from mllm_npu.ops import gelu as module
from mllm_npu.ops.gelu import GELU, gelu, gelu_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_the_exact_form_and_not_the_tanh_one(dtype):
    x = torch.linspace(-6, 6, 4001).to(dtype)
    assert torch.equal(gelu(x), F.gelu(x))
    assert torch.equal(GELU()(x), gelu(x))
    if dtype is torch.float32:
        torch.testing.assert_close(gelu_reference(x), gelu(x), atol=1e-6, rtol=1e-5)
        assert (gelu(x) - F.gelu(x, approximate="tanh")).abs().max() > 2e-4


def test_an_npu_is_asked_for_the_exact_form(monkeypatch):
    asked = []

    class Extension:
        @staticmethod
        def npu_gelu(x, *, approximate="none"):
            asked.append(approximate)
            return x

    monkeypatch.setattr(module, "fused_ops", lambda: Extension)
    monkeypatch.setattr("mllm_npu.ops.ways.device_of", lambda _: "npu")
    gelu(torch.ones(3))
    assert asked == ["none"]
    assert gelu(torch.empty(0)).shape == (0,)
    assert asked == ["none"]
