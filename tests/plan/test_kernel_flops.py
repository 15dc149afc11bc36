"""FLOPs of kernels, also of those torch has no formula for."""

import pytest
import torch

from mllm_npu.plan.kernel_flops import kernel_flops, needed_flops

ATEN, OWN = torch.ops.aten, torch.ops.mllm_npu


def empty(*shape):
    return torch.empty(shape, device="meta")


def test_a_product_and_a_sum():
    left, right = empty(4, 8), empty(8, 16)
    assert kernel_flops(ATEN.mm.default, (left, right), {}, empty(4, 16)) == 2 * 4 * 8 * 16
    assert kernel_flops(ATEN.add.Tensor, (left, left), {}, left) == 0


def test_products_that_are_added_in_place():
    into, left, right = empty(2, 4, 16), empty(2, 4, 8), empty(2, 8, 16)
    flops = kernel_flops(ATEN.baddbmm_.default, (into, left, right), {"beta": 0}, into)
    assert flops == 2 * 2 * 4 * 8 * 16


def test_a_convolution_backwards_counts_each_gradient():
    grad, inputs, weight = empty(1, 8, 4, 4), empty(1, 3, 8, 8), empty(8, 3, 2, 2)
    settings = (None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1)
    both, one = ((*settings, mask) for mask in ([True, True, False], [False, True, False]))
    kernel = ATEN.convolution_backward.default
    product = 2 * 16 * weight.numel()
    assert kernel_flops(kernel, (grad, inputs, weight, *both), {}, None) == 2 * product
    assert kernel_flops(kernel, (grad, inputs, weight, *one), {}, None) == product


def test_fused_attention_by_the_pairs_that_see_each_other():
    q = empty(10, 4, 16)
    forward = OWN.fused_attention.default
    backward = OWN.fused_attention_backward.default
    flops = kernel_flops(forward, (q, q, q, 55.0, 8), {}, None)
    assert flops == 2 * 55 * 4 * (16 + 16)
    again = kernel_flops(backward, (q, q, q, q, q, q, q, 55.0), {}, None)
    assert again == pytest.approx(2.5 * flops)
    assert needed_flops(backward, again) == pytest.approx(2 * flops)
    assert needed_flops(forward, flops) == flops


def test_attention_of_the_cpu_in_both_directions():
    q = empty(1, 4, 10, 16)
    forward = ATEN._scaled_dot_product_flash_attention_for_cpu.default
    backward = ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default
    flops = kernel_flops(forward, (q, q, q), {}, None)
    assert flops == 2 * 2 * 4 * 10 * 10 * 16
    assert kernel_flops(backward, (q, q, q, q), {}, None) == pytest.approx(2.5 * flops)
