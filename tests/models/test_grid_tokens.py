"""Tokens of joined tiles are gathered, weighed and ended, and gradients go back to all of them."""

import pytest
import torch

from mllm_npu.models.grid_tokens import join_tokens

SOURCES = torch.tensor([[1], [6], [0], [3]])


def test_each_is_the_token_it_comes_from():
    tokens, newline = torch.randn(3, 2, 5), torch.randn(5)
    found = join_tokens(tokens, newline, SOURCES, None)
    assert torch.equal(found, torch.stack([tokens[0, 0], tokens[2, 1], newline, tokens[1, 0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixture_is_weighed_in_full_precision(dtype):
    tokens, newline = torch.randn(2, 2, 64).to(dtype), torch.randn(64).to(dtype)
    sources = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])
    found = join_tokens(tokens, newline, sources, weights)
    expected = (tokens.flatten(0, 1).float() * weights[0][:, None]).sum(0)
    assert found.dtype == dtype
    torch.testing.assert_close(found[0], expected.to(dtype), rtol=0, atol=1e-6)
    assert torch.equal(found[1], newline)


@pytest.mark.parametrize("mixes", [False, True])
def test_gradients_reach_tiles_and_newline_each_as_often_as_it_is_used(mixes):
    tokens, newline = torch.ones(3, 2, 5, requires_grad=True), torch.ones(5, requires_grad=True)
    sources = torch.tensor([[1], [1], [0], [3]])
    weights = None
    if mixes:
        sources = torch.cat([sources, torch.full_like(sources, 6)], 1)
        weights = torch.tensor([[0.75, 0.25]] * 4)
    join_tokens(tokens, newline, sources, weights).sum().backward()
    share = 0.75 if mixes else 1.0
    expected = torch.zeros(6)
    expected[[0, 2]] = torch.tensor([2 * share, share])
    expected[5] += 1.0 if mixes else 0.0
    assert torch.allclose(tokens.grad.flatten(0, 1)[:, 0], expected)
    assert torch.allclose(newline.grad, torch.full((5,), share))
