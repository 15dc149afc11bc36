import torch

from mllm_npu.ops.autocast import compute_dtype, in_compute_dtype, without_autocast


def test_without_autocast_a_tensor_stays_as_it_is():
    tensor = torch.randn(2)
    assert compute_dtype(tensor) == torch.float32
    assert in_compute_dtype(tensor) is tensor


def test_under_autocast_it_is_narrowed_on_that_device_alone():
    tensor, hollow = torch.randn(2), torch.randn(2, device="meta")
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_dtype(tensor) == torch.bfloat16
        assert in_compute_dtype(tensor).dtype == torch.bfloat16
        assert in_compute_dtype(hollow) is hollow


def test_autocast_is_off_inside_and_on_again_behind():
    tensor = torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(tensor):
            assert (tensor @ tensor).dtype == torch.float32
        assert (tensor @ tensor).dtype == torch.bfloat16


def test_a_device_without_autocast_has_nothing_to_turn_off():
    tensor = torch.randn(2, 2, device="meta")
    with without_autocast(tensor):
        assert (tensor @ tensor).dtype == torch.float32
