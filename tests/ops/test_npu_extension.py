import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mllm_npu.ops import pretended_kernels
from mllm_npu.ops.npu_extension import causal_mask, compressed_mask, fused_ops, takes_dtype
from mllm_npu.ops.ways import pretend

CPU = torch.device("cpu")


def test_the_package_is_imported_when_it_is_asked_for(npu_kernels):
    assert fused_ops() is npu_kernels


def test_the_mask_hides_what_is_later_and_is_made_once():
    mask = compressed_mask(CPU)
    assert mask.shape == (2048, 2048)
    assert mask.dtype == torch.bool
    assert mask[:3, :3].tolist() == [[False, True, True], [False, False, True], [False] * 3]
    assert compressed_mask(CPU) is mask


def test_a_mask_first_asked_for_in_inference_can_be_kept_by_a_training_step():
    compressed_mask.cache_clear()
    with torch.inference_mode():
        mask = compressed_mask(CPU)
    assert not mask.is_inference()


def test_one_dtype_of_those_that_the_kernels_compute_in():
    assert takes_dtype(torch.bfloat16)
    assert takes_dtype(torch.float32, torch.float32)
    assert not takes_dtype(torch.float32, torch.bfloat16)
    assert not takes_dtype(torch.float64)
    assert not takes_dtype(torch.complex64)


def test_where_the_device_is_pretended_kernels_are_stood_in_for():
    assert causal_mask(CPU) is compressed_mask(CPU)
    with FakeTensorMode(), pretend("npu"):
        assert fused_ops() is pretended_kernels
        mask = causal_mask(CPU)
        assert (mask.shape, mask.dtype) == (compressed_mask(CPU).shape, torch.bool)
        assert causal_mask(CPU) is mask
        assert mask is not compressed_mask(CPU)
