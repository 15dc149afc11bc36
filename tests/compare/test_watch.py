"""A watch tells every tensor once, where it was, and leaves the numbers as they are."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mllm_npu.compare.watch import Watch, count_operations, label
from mllm_npu.distributed.recompute import recompute_block


class Listener:
    def __init__(self):
        self.told = {}

    def take(self, event, tensor, *, needs_grad=False):
        key = (event.kind, event.module, event.count, event.path)
        assert key not in self.told, key
        self.told[key] = (tensor.detach().clone(), needs_grad)

    def of(self, kind):
        return [key[1:] for key in self.told if key[0] == kind]


def run(root):
    listener = Listener()
    with Watch(root, listener) as watch:
        loss = root(root.inputs)["loss"]
        with watch.going_back():
            loss.backward()
    return listener, watch


def test_names_are_those_of_the_model():
    assert label("model.blocks.0.up") == "blocks.0.up"
    assert label("contrast.text") == "contrast.text"
    assert label("model") == "model"
    assert label("") == "objective"


def test_modules_are_told_in_their_order(tools):
    listener, watch = run(tools.Toy())
    outputs = [module for module, _, _ in listener.of("output")]
    assert outputs[:6] == [
        "embed",
        "blocks.0.norm",
        "blocks.0.up",
        "blocks.0.act",
        "blocks.0.down",
        "blocks.0",
    ]
    assert outputs[-3:] == ["head", "model", "objective"]
    gradients = [module for module, _, _ in listener.of("output_grad")]
    assert gradients[0] == "objective"
    assert gradients[-1] == "embed"
    assert [call.index for call in watch.calls] == list(range(len(watch.calls)))


def test_calls_know_where_they_are(tools):
    _, watch = run(tools.Toy())
    calls = {call.module: call for call in watch.calls}
    by_index = {call.index: call.module for call in watch.calls}
    assert by_index[calls["blocks.1.up"].parent] == "blocks.1"
    assert by_index[calls["blocks.1"].parent] == "model"
    assert calls["objective"].parent == -1
    assert (calls["blocks.0"].before, calls["blocks.0"].behind) == (1, 5)
    assert calls["blocks.0"].inside == 4
    assert calls["embed"].dtypes == ("float32",)
    assert calls["blocks.0"].dtypes == ()
    assert calls["blocks.0"].kind == "Block"


def test_gradients_are_those_of_autograd(tools):
    root = tools.Toy()
    listener, _ = run(root)
    watched = {name: p.grad.clone() for name, p in root.model.named_parameters()}
    root.zero_grad()
    root(root.inputs)["loss"].backward()
    for name, parameter in root.model.named_parameters():
        assert torch.equal(watched[name], parameter.grad)
        owner = name.rpartition(".")[0]
        told, _ = listener.told["parameter_grad", owner, 1, name]
        assert torch.equal(told, parameter.grad)


def test_what_a_call_gives_back_is_told_apart_from_what_others_do(tools):
    """The input of a block is used by its norm and by the sum behind it."""
    listener, _ = run(tools.Toy())
    of_norm = listener.told["input_grad", "blocks.1.norm", 1, "0"][0]
    of_block = listener.told["input_grad", "blocks.1", 1, "0"][0]
    reached = listener.told["output_grad", "blocks.1", 1, ""][0]
    assert torch.allclose(of_block, of_norm + reached, atol=1e-7)
    assert torch.equal(of_block, listener.told["output_grad", "blocks.0", 1, ""][0])


def test_a_module_called_twice_is_told_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.inputs = torch.ones(2, 3)

        def forward(self, x):
            return {"loss": self.layer(self.layer(x)).sum()}

    listener, watch = run(Twice())
    assert listener.of("output")[:2] == [("layer", 1, ""), ("layer", 2, "")]
    assert listener.of("parameter_grad") == [
        ("layer", 1, "layer.bias"),
        ("layer", 1, "layer.weight"),
    ] or sorted(listener.of("parameter_grad")) == [
        ("layer", 1, "layer.bias"),
        ("layer", 1, "layer.weight"),
    ]
    assert [call.count for call in watch.calls if call.module == "layer"] == [1, 2]


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_what_is_computed_again_is_not_told_again(tools, kind):
    plain, _ = run(tools.Toy())
    root = tools.Toy()
    for block in root.model.blocks:
        recompute_block(block, kind)
    again, _ = run(root)
    assert again.told.keys() == plain.told.keys()
    for key, (tensor, _) in plain.told.items():
        assert torch.equal(again.told[key][0], tensor), key


def test_a_part_that_is_recomputed_by_itself_is_not_told_again():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.inputs = torch.ones(2, 3, requires_grad=True)

        def forward(self, x):
            return {"loss": checkpoint(self.layer, x, use_reentrant=False).sum()}

    listener, _ = run(Root())
    assert ("layer", 1, "") in listener.of("output")
    assert ("layer", 1, "") in listener.of("output_grad")
    assert ("layer", 2, "") not in listener.of("output")


def test_parameters_belong_to_the_innermost_module_that_is_called():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Module()
            self.model.attn = nn.MultiheadAttention(8, 2, batch_first=True)
            self.model.scale = nn.Parameter(torch.ones(1))
            self.inputs = torch.randn(1, 3, 8)

        def forward(self, x):
            return {"loss": (self.model.attn(x, x, x)[0] * self.model.scale).sum()}

    listener, _ = run(Root())
    owners = {path: module for module, _, path in listener.of("parameter_grad")}
    assert owners["attn.out_proj.weight"] == "attn"
    assert owners["attn.in_proj_weight"] == "attn"
    assert owners["scale"] == "objective"


def test_without_gradients_only_the_forward_pass_is_told(tools):
    root = tools.Toy()
    for parameter in root.model.embed.parameters():
        parameter.requires_grad_(False)
    listener, _ = run(root)
    assert ("embed", 1, "") in listener.of("output")
    assert ("embed", 1, "") not in listener.of("output_grad")
    assert listener.told["output", "embed", 1, ""][1] is False
    assert listener.told["output", "blocks.0", 1, ""][1] is True


def test_nothing_stays_behind(tools):
    root = tools.Toy()
    listener, _ = run(root)
    told = dict(listener.told)
    root(root.inputs)["loss"].backward()
    assert listener.told.keys() == told.keys()
    assert all(not module._forward_hooks for module in root.modules())
    assert all(not module._forward_pre_hooks for module in root.modules())


def test_inputs_may_be_changed_in_place():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.act = nn.ReLU(inplace=True)
            self.inputs = torch.randn(2, 3)

        def forward(self, x):
            return {"loss": self.act(self.layer(x)).sum()}

    listener, _ = run(Root())
    assert bool((listener.told["output", "layer", 1, ""][0] < 0).any())
    assert not bool((listener.told["output", "act", 1, ""][0] < 0).any())


def test_what_counts_as_an_operation(tools):
    block = tools.Toy().part("blocks.0")
    assert count_operations(block.up) == count_operations(block.act) == 1
    assert count_operations(block) == 0
    assert count_operations(nn.MultiheadAttention(4, 1)) == 4
    assert count_operations(nn.Identity()) == count_operations(nn.Dropout(0.1)) == 0
