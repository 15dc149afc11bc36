import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mllm_npu.ops import rms_norm as module
from mllm_npu.ops.rms_norm import rms_norm
from mllm_npu.ops.ways import OPS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_is_that_of_transformers(dtype, weight_dtype):
    norm = LlamaRMSNorm(32, eps=1e-5).to(weight_dtype)
    torch.nn.init.normal_(norm.weight)
    x = (torch.randn(3, 5, 32) * 7).to(dtype)
    ours, theirs = rms_norm(x, norm.weight, 1e-5), norm(x)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


def test_gradients_are_those_of_transformers():
    norm = LlamaRMSNorm(16, eps=1e-6)
    x, y = torch.randn(4, 16, requires_grad=True), torch.randn(4, 16)
    theirs = torch.autograd.grad((norm(x) * y).sum(), [x, norm.weight])
    ours = torch.autograd.grad((rms_norm(x, norm.weight, 1e-6) * y).sum(), [x, norm.weight])
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_mean_square_becomes_one():
    out = rms_norm(torch.randn(2, 64) * 9, torch.ones(64), 0.0)
    torch.testing.assert_close(out.square().mean(-1), torch.ones(2))


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_way_gives_the_same_dtype_and_nearly_the_same_values(
    npu_kernels, dtype, weight_dtype
):
    def fused(x, gamma, epsilon):
        assert x.dtype == gamma.dtype
        root = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + epsilon)
        return (x.float() * root * gamma.float()).to(x.dtype), root

    npu_kernels.npu_rms_norm = fused
    x, weight = torch.randn(3, 32).to(dtype), torch.randn(32).to(weight_dtype)
    assert module._suits_kernels(x, weight, 1e-5)
    ours, truth = module._fused(x, weight, 1e-5), rms_norm(x, weight, 1e-5)
    assert ours.dtype == truth.dtype
    torch.testing.assert_close(ours, truth, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_own_gives_the_same_dtype_and_nearly_the_same_values(dtype, weight_dtype):
    x, weight = torch.randn(3, 32).to(dtype), torch.randn(32).to(weight_dtype)
    truth = rms_norm(x, weight, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        ours = module._by_torch(x, weight, 1e-5)
    assert ours.dtype == truth.dtype
    torch.testing.assert_close(ours, truth, atol=0.02, rtol=0.02)


def test_what_the_kernel_does_not_take_goes_another_way():
    x, weight = torch.randn(3, 8), torch.ones(8)
    assert module._suits_kernels(x, weight, 1e-5)
    assert not module._suits_kernels(x.double(), weight, 1e-5)
    assert not module._suits_kernels(x, weight[:1], 1e-5)
    assert not module._suits_kernels(x[:0], weight, 1e-5)
    assert OPS["rms_norm"].pick(x.to("meta"), weight.to("meta"), 1e-5).name == "written out"
