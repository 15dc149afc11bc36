"""A module alone gives what it gives in its place, and an error of its own stays its own."""

import pytest
import torch
from torch import nn

from mllm_npu.compare.isolation import Isolation
from mllm_npu.compare.recording import OWN


class Listener:
    def __init__(self):
        self.told = {}

    def take(self, event, tensor, *, needs_grad=False):
        self.told[event.kind, event.module, event.count, event.path] = tensor.detach().clone()

    def of(self, kind):
        return {key[1:]: tensor for key, tensor in self.told.items() if key[0] == kind}


def alone(tools, a, b):
    recording = tools.record(a)
    listener = Listener()
    isolation = tools.observe_alone(b, recording, listener)
    return recording, listener, isolation


def test_every_module_gives_alone_what_it_gave(tools):
    recording, listener, isolation = alone(tools, tools.Toy(), tools.Toy())
    assert isolation.unlike == []
    modules = {call.module for call in recording.calls}
    assert {module for module, _, _ in listener.of("own_output")} == modules
    for kind in ("own_output", "own_input_grad"):
        for (module, count, path), tensor in listener.of(kind).items():
            call = next(c for c in recording.calls if c.module == module and c.count == count)
            known = recording.get(OWN[kind], call, path)
            assert torch.allclose(tensor, known, atol=1e-7), (kind, module)


def test_gradients_of_parameters_are_the_whole_ones_where_a_module_is_called_once(tools):
    root = tools.Toy()
    recording, listener, _ = alone(tools, root, tools.Toy())
    found = listener.of("own_parameter_grad")
    assert len(found) == len(list(root.model.parameters()))
    for (module, _, path), tensor in found.items():
        entry = recording.entries[f"parameter_grad::{module}.{path}"]
        assert torch.allclose(recording.tensor(entry), tensor, atol=1e-7)


def test_other_weights_before_a_module_do_not_reach_it(tools):
    b = tools.Toy()
    with torch.no_grad():
        b.model.embed.weight.add_(1)
    recording, listener, _ = alone(tools, tools.Toy(), b)
    for (module, count, path), tensor in listener.of("own_output").items():
        call = next(c for c in recording.calls if c.module == module and c.count == count)
        same = torch.allclose(tensor, recording.get("output", call, path), atol=1e-6)
        assert same == (module not in ("embed", "model", "objective")), module


def test_a_cut_gradient_is_told_as_zeros(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.act"), torch.Tensor.detach)
    _, listener, _ = alone(tools, tools.Toy(), b)
    assert not listener.of("own_input_grad")["blocks.1.act", 1, "0"].any()
    assert listener.of("own_input_grad")["blocks.1.down", 1, "0"].any()


def test_inputs_of_another_shape_are_not_run(tools):
    b = tools.Toy()
    b.inputs, b.targets = b.inputs[:3], b.targets[:3]
    recording, listener, isolation = alone(tools, tools.Toy(), b)
    assert listener.told == {}
    assert len(isolation.unlike) == len(recording.calls)


def test_gradients_of_outputs_that_come_of_each_other_are_not_counted_twice(tools):
    """As in a UNet, whose blocks give what was between their layers, and the last of it twice."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            between = self.first(x).tanh()
            last = self.second(between)
            return last, (between, last)

    class Root(tools.Toy):
        def __init__(self):
            super().__init__()
            self.model.steps = Steps()

        def forward(self, x):
            last, (between, again) = self.model.steps(self.model.embed(x))
            return {"loss": (last * 2).square().sum() + (between * again).sum()}

    recording, listener, _ = alone(tools, Root(), Root())
    call = next(call for call in recording.calls if call.module == "steps")
    known = recording.get("input_grad", call, "0")
    assert torch.allclose(listener.of("own_input_grad")["steps", 1, "0"], known, rtol=1e-5)


def test_what_is_drawn_at_random_is_drawn_again():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Noisy()
            self.inputs = torch.ones(2, 3)

        def forward(self, x):
            return {"loss": (self.layer(x) + self.layer(x)).sum() + torch.rand(())}

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale + torch.randn(2, 3)

    from mllm_npu.compare.recording import Facts, Recording
    from mllm_npu.compare.tensor_store import TensorStore
    from mllm_npu.compare.watch import Watch

    root, recording, listener = Root(), Recording(store=TensorStore(memory_gib=1)), Listener()
    torch.manual_seed(3)
    with Watch(root, recording) as watch:
        root(root.inputs)
    recording.end(watch.calls, Facts())
    torch.manual_seed(3)
    with Isolation(root, recording, listener), torch.no_grad():
        root(root.inputs)
    for kind in ("layer", "objective"):
        call = next(call for call in recording.calls if call.module == kind)
        path = "loss" if kind == "objective" else ""
        known = recording.get("output", call, path)
        assert torch.equal(listener.of("own_output")[kind, 1, path], known)


def test_weights_that_autocast_keeps_have_their_gradients(tools):
    recording, listener = None, Listener()
    root = tools.Toy()
    with torch.autocast("cpu", torch.bfloat16):
        recording = tools.record(root)
        tools.observe_alone(root, recording, listener)
    assert torch.is_autocast_cache_enabled()
    gradients = listener.of("own_parameter_grad")
    assert all(gradients[f"blocks.{n}.up", 1, "weight"].any() for n in range(3))


@pytest.mark.parametrize("inplace", [False, True])
def test_the_recording_stays_as_it_was(tools, inplace):
    root = tools.Toy()
    for block in root.model.blocks:
        block.act = nn.ReLU(inplace=inplace)
    recording = tools.record(root)
    before = {key: recording.tensor(entry).clone() for key, entry in recording.entries.items()}
    tools.observe_alone(root, recording, Listener())
    for key, entry in recording.entries.items():
        assert torch.equal(recording.tensor(entry), before[key])
        assert not recording.tensor(entry).requires_grad
