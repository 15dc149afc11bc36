"""The cost of one item of a part: counted on a run without memory, or by its weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mllm_npu.train.part_costs import (
    NO_COST,
    Input,
    PartCost,
    count_flops,
    estimate_part,
    measure_part,
)

ROWS = Input(shape=(5, 4))
ROWS_WITH_GRADIENT = Input(shape=(5, 4), needs_gradient=True)
PRODUCT = 2 * 5 * 4 * 3


@pytest.mark.parametrize(
    ("is_trained", "rows", "products_backward"),
    [
        (True, ROWS_WITH_GRADIENT, 2),  # of the weight and of the input: 3 products in all
        (True, ROWS, 1),  # nothing before the layer wants a gradient
        (False, ROWS_WITH_GRADIENT, 1),  # the gradient flows through: 2 products
        (False, ROWS, 0),
    ],
)
def test_a_layer_costs_what_its_gradients_need(is_trained, rows, products_backward):
    layer = nn.Linear(4, 3).requires_grad_(is_trained)
    cost = measure_part(layer, layer, [rows])
    assert (cost.forward, cost.backward) == (PRODUCT, products_backward * PRODUCT)
    assert cost.carries_gradient == (products_backward > 0)
    assert cost.shape == (5, 3)
    assert not cost.is_estimated


def test_without_gradients_only_the_forward_pass_counts():
    layer = nn.Linear(4, 3)
    cost = measure_part(layer, layer, [ROWS_WITH_GRADIENT], with_gradient=False)
    assert (cost.forward, cost.backward, cost.carries_gradient) == (PRODUCT, 0, False)


def test_a_part_of_which_some_is_trained_is_counted_by_layer():
    """Behind the trained layer the gradient flows through a frozen one, before it nothing does."""
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))).requires_grad_(False)
    layers[1].requires_grad_(True)
    cost = measure_part(layers, layers, [ROWS])
    assert (cost.forward, cost.backward) == (3 * 160, 160 + 160)


def test_low_rank_updates_cost_their_gradients_and_the_way_through_the_layer():
    from mllm_npu.models.lora import LoraRecipe

    part = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 4, bias=False))
    LoraRecipe(rank=2, alpha=2.0, dropout=0.1, targets=["*"]).apply(part)
    rows = 5
    base, update = [2 * rows * size for size in (24, 24)], [2 * rows * 2 * 10] * 2
    through = measure_part(part, part, [ROWS_WITH_GRADIENT])
    assert through.forward == sum(base) + sum(update)
    assert through.backward == sum(base) + 2 * sum(update)
    # Without a gradient to give back, the first base and the first update's own input need none.
    first = measure_part(part, part, [ROWS])
    assert through.backward - first.backward == base[0] + 2 * rows * 2 * 4


def test_attention_is_counted_whatever_kernel_a_device_has():
    def attend(query, key):
        return F.scaled_dot_product_attention(query, key, key, enable_gqa=True)

    inputs = [Input(shape=(1, 4, 7, 8), needs_gradient=True), Input(shape=(1, 2, 9, 8))]
    cost = measure_part(nn.Identity(), attend, inputs)
    assert cost.forward == 2 * (2 * 4 * 7 * 9 * 8)
    # The gradient of the weights and of the query; key and value need none.
    assert cost.backward == cost.forward


def test_multi_head_attention_and_convolutions_are_counted():
    part = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    cost = measure_part(
        part, lambda x: part(x, x, x, need_weights=False)[0], [Input(shape=(1, 6, 8))]
    )
    assert cost.forward == 2 * 6 * 8 * 8 * 4 + 2 * 2 * 6 * 6 * 8
    conv = nn.Conv2d(3, 5, 2, 2)
    cost = measure_part(conv, conv, [Input(shape=(1, 3, 8, 8))])
    assert (cost.forward, cost.backward) == (2 * 16 * 5 * 12, 2 * 16 * 5 * 12)
    wide = nn.ConvTranspose2d(3, 5, 2, 2)
    cost = measure_part(wide, wide, [Input(shape=(1, 3, 8, 8), needs_gradient=True)])
    assert (cost.forward, cost.backward) == (2 * 64 * 5 * 12, 2 * 2 * 64 * 5 * 12)
    depthwise = nn.Conv1d(6, 6, 3, groups=6)
    cost = measure_part(depthwise, depthwise, [Input(shape=(1, 6, 9), needs_gradient=True)])
    assert (cost.forward, cost.backward) == (2 * 7 * 6 * 3, 2 * 2 * 7 * 6 * 3)


def test_products_that_are_added_in_place_are_counted():
    with count_flops() as counter:
        torch.zeros(5, 3).addmm_(torch.ones(5, 4), torch.ones(4, 3))
        torch.zeros(2, 5, 3).baddbmm_(torch.ones(2, 5, 4), torch.ones(2, 4, 3))
    assert counter.get_total_flops() == 3 * PRODUCT


def test_a_part_in_half_precision_is_counted_the_same():
    layer = nn.Linear(4, 3, dtype=torch.bfloat16)
    assert measure_part(layer, layer, [ROWS]).forward == PRODUCT


def test_the_part_and_the_random_numbers_stay_as_they_were():
    part = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    tensors = dict(part.named_parameters())
    state = torch.random.get_rng_state()
    measure_part(part, lambda rows: part(rows) + torch.rand(()), [ROWS])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(tensors[name] is parameter for name, parameter in part.named_parameters())
    assert all(parameter.grad is None for parameter in part.parameters())
    assert all(torch.equal(part.state_dict()[name], before[name]) for name in before)
    assert not any(tensor.is_meta for tensor in part.state_dict().values())


def test_a_part_on_meta_is_counted_too():
    with torch.device("meta"):
        layer = nn.Linear(4, 3)
    assert measure_part(layer, layer, [ROWS]).total == 2 * PRODUCT


def test_a_part_that_asks_for_the_device_runs_as_on_a_cpu():
    layer = nn.Linear(4, 3)

    def run(rows):
        with torch.autocast(rows.device.type, enabled=False):
            return layer(rows)

    cost = measure_part(layer, run, [ROWS])
    assert (cost.forward, cost.is_estimated) == (PRODUCT, False)
    assert type(layer.weight) is nn.Parameter


class AsksForValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.head = nn.Linear(4, 50, bias=False)
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
        self.layers[0].requires_grad_(False)

    def forward(self, rows):
        return self.layers(rows) if rows.sum().item() > 0 else rows


def test_a_part_that_asks_for_values_is_estimated_by_its_weights_and_says_so():
    part = AsksForValues()
    cost = measure_part(part, part, [ROWS], num_tokens=5)
    weights = 200 + 12 + 12
    assert cost.is_estimated
    assert cost.forward == 2 * 5 * weights
    assert cost.backward == 2 * 5 * (weights + 200 + 12)
    assert estimate_part(part, 5, False, leave_out=[part.head.weight]).forward == 2 * 5 * 24
    frozen = part.requires_grad_(False)
    assert measure_part(frozen, frozen, [ROWS], num_tokens=5).backward == 0
    assert measure_part(frozen, frozen, [ROWS_WITH_GRADIENT], num_tokens=5).backward == 10 * weights
    assert not measure_part(part, part, [ROWS_WITH_GRADIENT], with_gradient=False).carries_gradient


def test_costs_add_up():
    one = PartCost(forward=3.0, backward=6.0, carries_gradient=True)
    two = PartCost(forward=1.0, backward=0.0, is_estimated=True)
    left = one.plus(two, times=-2)
    assert (left.forward, left.backward, left.total) == (1.0, 6.0, 7.0)
    assert (left.carries_gradient, left.is_estimated) == (True, True)
    assert NO_COST.plus(one).total == one.total
