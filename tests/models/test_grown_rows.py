import pytest
import torch

from mllm_npu.models.grown_rows import RowGrowth


@pytest.fixture
def old():
    return torch.randn(200, 3, generator=torch.Generator().manual_seed(4)) * torch.tensor(
        [1.0, 2.0, 0.5]
    ) + torch.tensor([1.0, -3.0, 0.0])


@pytest.mark.parametrize("rule", ["mean_times_3", "mean_resizing"])
@pytest.mark.parametrize("is_head", [False, True])
def test_old_rows_stay_as_they_are(old, rule, is_head):
    grown = RowGrowth(rule=rule, is_head=is_head).grow(old, 260)
    assert grown.shape == (260, 3)
    assert torch.equal(grown[:200], old)


def test_new_rows_of_a_table_are_its_mean_and_of_a_head_three_times_that(old):
    table = RowGrowth(rule="mean_times_3", is_head=False).grow(old, 203)
    head = RowGrowth(rule="mean_times_3", is_head=True).grow(old, 203)
    torch.testing.assert_close(table[200:], old.mean(0).expand(3, 3))
    torch.testing.assert_close(head[200:], 3 * old.mean(0).expand(3, 3))


@pytest.mark.parametrize("is_head", [False, True])
def test_drawn_rows_lie_around_the_mean_by_the_covariance_of_the_old_ones(old, is_head):
    grown = RowGrowth(rule="mean_resizing", is_head=is_head).grow(old.double(), 20_200)
    new = grown[200:].double()
    torch.testing.assert_close(new.mean(0), old.double().mean(0), atol=1e-4, rtol=0)
    wanted = torch.cov(old.double().T, correction=0) * 1e-9
    torch.testing.assert_close(torch.cov(new.T), wanted, rtol=0.2, atol=2e-11)


def test_the_same_seed_draws_the_same_rows(old):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(RowGrowth(rule="mean_resizing", is_head=False).grow(old, 210))
    assert torch.equal(*drawn)


def test_a_bias_grows_like_a_head_of_width_one(old):
    bias = old[:, 0]
    grown = RowGrowth(rule="mean_times_3", is_head=True).grow(bias, 202)
    torch.testing.assert_close(grown[200:], (3 * bias.mean()).expand(2))
    assert RowGrowth(rule="mean_resizing", is_head=True).grow(bias, 202).shape == (202,)


@pytest.mark.parametrize("rule", ["mean_times_3", "mean_resizing"])
def test_half_precision_is_averaged_in_single(old, rule):
    half = (old + 100).bfloat16()
    grown = RowGrowth(rule=rule, is_head=False).grow(half, 201)
    assert grown.dtype is torch.bfloat16
    assert torch.equal(grown[:200], half)
    torch.testing.assert_close(grown[200], half.float().mean(0).bfloat16())
