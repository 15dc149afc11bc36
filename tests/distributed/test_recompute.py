import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.distributed.recompute import recompute_block
from mllm_npu.models.tiny import tiny_language_model

KINDS = ("none", "full", "selective")
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}


class Block(nn.Module):
    """Attention, dropout and four matrix products; gives a pair, takes a keyword."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x_TD, *, scale):
        self.calls += 1
        q, k, v = (layer(x_TD)[None, None] for layer in self.layers[:3])
        attended = F.scaled_dot_product_attention(q, k, v)[0, 0]
        return self.layers[3](self.dropout(attended)) * scale, "more"


def make_block(kind):
    torch.manual_seed(0)
    block = Block()
    recompute_block(block, kind)
    return block


def run(block):
    torch.manual_seed(1)
    given = torch.randn(6, 8, requires_grad=True)
    out, more = block(given, scale=2.0)
    assert more == "more"
    return given, out


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_gradients_are_the_same_with_dropout(kind):
    plain, block = make_block("none"), make_block(kind)
    expected_given, expected = run(plain)
    given, out = run(block)
    assert torch.equal(out, expected)
    for result in (expected, out):
        result.square().sum().backward()
    assert torch.equal(given.grad, expected_given.grad)
    for name, parameter in plain.named_parameters():
        assert torch.equal(block.get_parameter(name).grad, parameter.grad), name
    assert block.state_dict().keys() == plain.state_dict().keys()
    assert block.calls == (1 if kind == "none" else 2)


class CountProducts(TorchDispatchMode):
    """Counts matrix products and calls of attention."""

    def __init__(self):
        super().__init__()
        self.products = self.attentions = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.products += operation in PRODUCTS
        self.attentions += "scaled_dot_product" in str(operation) and "backward" not in str(
            operation
        )
        return operation(*args, **(kwargs or {}))


def work_of_backward(kind):
    _, out = run(make_block(kind))
    with CountProducts() as counted:
        out.sum().backward()
    return counted.products, counted.attentions


def test_each_kind_computes_again_what_it_says():
    products, attentions = work_of_backward("none")
    assert (products, attentions) == (8, 0)
    # The result of the last product is needed by nothing.
    assert work_of_backward("full") == (products + 3, 1)
    # Of the first three products the first and the third are kept; attention is too.
    assert work_of_backward("selective") == (products + 1, 0)


def kept_bytes(kind):
    """Memory between the passes beyond inputs and weights."""
    block = make_block(kind)
    own = {parameter.data_ptr() for parameter in block.parameters()}
    sizes = {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(block)
    return sum(sizes.values())


def test_recomputing_keeps_less():
    assert kept_bytes("full") < kept_bytes("none") / 3


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_without_gradients_nothing_is_wrapped(kind):
    block = make_block(kind)
    with torch.no_grad():
        _, out = run(block)
    assert block.calls == 1
    assert not out.requires_grad


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_blocks_of_a_real_model_give_the_same_gradients(kind):
    grads = []
    for chosen in ("none", kind):
        torch.manual_seed(0)
        model = tiny_language_model()
        for unit in model.sharding_units():
            recompute_block(unit, chosen)
        embeds = torch.randn(10, model.width, generator=torch.Generator().manual_seed(2))
        positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4, 5])
        hidden = model(embeds, position_ids_T=positions, sequence_ends=(4, 10))
        hidden.square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert len(grads[0]) > 10
    for name, gradient in grads[0].items():
        torch.testing.assert_close(grads[1][name], gradient, msg=name)
