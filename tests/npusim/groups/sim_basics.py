"""What programs do with a device works: tensors, random numbers, memory, streams, modules."""

import copy
import importlib.metadata
import io

import pytest
import torch
import torch.nn.functional as F
import torch_npu
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

NPU = torch.device("npu", 0)


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device="npu").to(dtype)


def test_torch_knows_the_device():
    assert torch.accelerator.current_accelerator() == torch.device("npu")
    assert torch.accelerator.device_count() == torch.npu.device_count() == 8
    assert torch.npu.is_available()
    assert torch.get_device_module("npu") is torch.npu is torch_npu.npu
    assert torch.distributed.get_default_backend_for_device("npu") == "hccl"
    assert importlib.metadata.version("torch_npu") == torch_npu.__version__
    assert torch.npu.get_device_name() == "Ascend910B3"
    assert torch.npu.get_device_capability() is None
    assert torch.npu.is_bf16_supported()
    assert torch.npu.get_device_properties().total_memory == 64 << 30


def test_the_current_device_is_where_tensors_go():
    assert torch.empty(1, device="npu").device == NPU
    with torch.npu.device(3):
        assert torch.npu.current_device() == torch.accelerator.current_device_index() == 3
        assert torch.empty(1, device="npu").get_device() == 3
    torch.accelerator.set_device_index(2)
    assert torch.zeros(1, device="npu").device.index == 2
    assert torch.npu.current_device() == 2
    with pytest.raises(RuntimeError, match="invalid NPU device"):
        torch.npu.set_device(8)


def test_factories_give_the_values_of_the_cpu():
    for make in (
        lambda **kw: torch.arange(5, **kw),
        lambda **kw: torch.full((2, 3), 7, **kw),
        lambda **kw: torch.linspace(0, 1, 4, **kw),
        lambda **kw: torch.eye(3, **kw),
        lambda **kw: torch.tensor([[1, 2], [3, 4]], **kw),
        lambda **kw: torch.tril_indices(3, 3, **kw),
    ):
        tensor = make(device="npu")
        assert tensor.is_npu
        assert torch.equal(tensor.cpu(), make(device="cpu"))
    like = torch.ones_like(numbers(2, 3))
    assert like.device == NPU == like.new_zeros(2).device == like.new_tensor([1.0]).device


def test_views_share_memory():
    tensor = torch.zeros(4, 4, device="npu")
    tensor.view(2, 8)[0] = 1
    tensor.t()[3] = 2
    tensor.unfold(0, 2, 2)[1, 0].fill_(3)
    tensor.select(1, 1).add_(10)
    chunk = tensor.chunk(2)[1]
    chunk.mul_(2)
    host = torch.zeros(4, 4)
    host.view(2, 8)[0] = 1
    host.t()[3] = 2
    host.unfold(0, 2, 2)[1, 0].fill_(3)
    host.select(1, 1).add_(10)
    host.chunk(2)[1].mul_(2)
    assert torch.equal(tensor.cpu(), host)
    assert tensor.view(torch.int32).dtype is torch.int32
    assert chunk.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert tensor.expand(2, 4, 4).stride() == (0, 4, 1)


def test_results_go_where_they_are_asked_to():
    left, right = numbers(3, 4), numbers(4, 5)
    out = torch.empty(0, device="npu")
    assert torch.mm(left, right, out=out) is out
    assert torch.allclose(out.cpu(), left.cpu() @ right.cpu())
    values, indices = torch.empty(0, device="npu"), torch.empty(0, device="npu").long()
    torch.topk(left, 2, out=(values, indices))
    assert torch.equal(values.cpu(), left.cpu().topk(2).values)
    assert indices.shape == (3, 2)
    assert torch.equal(left.clone().sub_(1).abs_().cpu(), (left.cpu() - 1).abs())


def test_indexing():
    tensor, host = numbers(6, 4), None
    host = tensor.cpu()
    rows = torch.tensor([4, 0, 4])
    assert torch.equal(tensor[rows.to(NPU)].cpu(), host[rows])
    assert torch.equal(tensor[rows].cpu(), host[rows])
    assert torch.equal(tensor[tensor > 0].cpu(), host[host > 0])
    assert torch.equal(tensor[1:5:2, None, -1].cpu(), host[1:5:2, None, -1])
    tensor[rows.to(NPU), 1] = 5.0
    host[rows, 1] = 5.0
    tensor.index_add_(0, rows.to(NPU), torch.ones(3, 4, device="npu"))
    host.index_add_(0, rows, torch.ones(3, 4))
    tensor.scatter_(1, torch.zeros(6, 1, device="npu").long(), 9.0)
    host.scatter_(1, torch.zeros(6, 1).long(), 9.0)
    assert torch.equal(tensor.cpu(), host)


def test_lists_of_tensors_are_computed_together():
    tensors = [numbers(3), numbers(2, 2)]
    hosts = [tensor.cpu() for tensor in tensors]
    norms = torch._foreach_norm(tensors)
    torch._foreach_mul_(tensors, 2.0)
    assert torch.allclose(torch.stack(norms).cpu(), torch.stack([host.norm() for host in hosts]))
    assert all(torch.equal(t.cpu(), 2 * host) for t, host in zip(tensors, hosts, strict=True))
    operators = torch_npu.simulation.stats().operators
    assert operators["aten::_foreach_norm.Scalar"] == operators["aten::_foreach_mul_.Scalar"] == 1


def test_random_numbers_follow_the_seed_of_the_device():
    def draw():
        drawn = [torch.rand(4, device="npu"), torch.randn(4, device="npu")]
        drawn += [torch.randint(9, (4,), device="npu"), torch.randperm(9, device="npu")]
        drawn += [F.dropout(torch.ones(40, device="npu"), 0.5)]
        return [tensor.cpu() for tensor in drawn]

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.npu.manual_seed(5)
    again = draw()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])
    before = torch.random.get_rng_state()
    draw()
    assert torch.equal(before, torch.random.get_rng_state()), "the host's state is its own"


def test_generators_have_a_state_of_16_bytes():
    generator = torch.Generator("npu").manual_seed(3)
    state = generator.get_state()
    first = torch.randn(4, device="npu", generator=generator)
    generator.set_state(state)
    assert torch.equal(first, torch.randn(4, device="npu", generator=generator))
    assert state.numel() == torch.npu.get_rng_state().numel() == 16
    states = torch.npu.get_rng_state_all()
    first = torch.rand(3, device="npu")
    torch.npu.set_rng_state_all(states)
    assert torch.equal(first, torch.rand(3, device="npu"))
    assert torch.npu.initial_seed() == 0


def test_dropout_keeps_the_asked_share_and_its_gradient_follows():
    ones = torch.ones(10000, device="npu", requires_grad=True)
    dropped = F.dropout(ones, 0.25)
    dropped.sum().backward()
    assert 0.72 < (dropped > 0).float().mean().item() < 0.78
    assert torch.equal(ones.grad, dropped.detach())
    assert torch.equal(F.dropout(ones, 0.0), ones)
    assert torch.equal(F.dropout(ones, 1.0), torch.zeros_like(ones))


def test_saving_and_loading():
    state = {"a": numbers(3), "b": {"c": numbers(2).bfloat16()}}
    file = io.BytesIO()
    torch.save(state, file)
    for where, device in ((None, NPU), ("cpu", torch.device("cpu")), ("npu:1", None)):
        file.seek(0)
        loaded = torch.load(file, map_location=where, weights_only=True)
        assert loaded["a"].device == (device or torch.device("npu:1"))
        assert torch.equal(loaded["b"]["c"].cpu(), state["b"]["c"].cpu())
    twin = copy.deepcopy(state)
    assert twin["a"].device == NPU
    assert twin["a"].data_ptr() != state["a"].data_ptr()
    module = copy.deepcopy(nn.Linear(2, 2, device="npu"))
    assert module.npu().weight.is_npu
    assert module.cpu().weight.device.type == "cpu"


def test_pinned_memory_goes_over_without_a_wait():
    host = torch.ones(100)
    pinned = host.pin_memory()
    assert pinned.is_pinned()
    assert not host.is_pinned()
    torch.npu.set_sync_debug_mode("error")
    device = pinned.to("npu", non_blocking=True)
    back = device.to("cpu", non_blocking=True)
    torch.npu.synchronize()
    assert torch.equal(back, host)
    loader = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=4, pin_memory=True)
    batches = [batch.to("npu", non_blocking=True) for (batch,) in loader]
    torch.npu.set_sync_debug_mode("default")
    assert torch.equal(torch.cat(batches).cpu(), torch.arange(8.0))
    assert torch_npu.simulation.stats().syncs.keys() == {"synchronize the device", *COPIED_BACK}


COPIED_BACK = {"copy device to host"}


def test_streams_and_events():
    stream, event = torch.npu.Stream(), torch.npu.Event(enable_timing=True)
    first = torch.npu.current_stream()
    assert first == torch.npu.default_stream()
    with torch.npu.stream(stream):
        assert torch.npu.current_stream() == stream
        event.record()
        tensor = numbers(3)
    assert torch.npu.current_stream() == first
    first.wait_event(event)
    first.wait_stream(stream)
    tensor.record_stream(first)
    event.synchronize()
    stream.synchronize()
    assert event.query()
    assert stream.query()
    with torch.npu.stream(None):
        assert torch.npu.current_stream() == first


def test_memory_is_accounted():
    torch.npu.reset_peak_memory_stats()
    before = torch.npu.memory_allocated()
    tensor = torch.empty(1 << 20, device="npu")
    taken = torch.npu.memory_allocated() - before
    assert 4 << 20 <= taken <= (4 << 20) + 1024
    doubled = tensor * 2
    assert torch.npu.memory_allocated() - before == 2 * taken
    del tensor, doubled
    assert torch.npu.memory_allocated() == before == torch.accelerator.memory_allocated()
    assert torch.accelerator.max_memory_allocated() >= before + 2 * taken
    assert torch.npu.max_memory_allocated() == torch.accelerator.max_memory_allocated()
    assert torch.npu.memory_stats()["allocated_bytes.all.current"] == before
    free, total = torch.npu.mem_get_info()
    assert (free, total) == ((64 << 30) - before, 64 << 30)


def test_storages_can_be_emptied_and_filled_again():
    tensor = torch.ones(256, device="npu")
    before = torch.npu.memory_allocated()
    tensor.untyped_storage().resize_(0)
    assert torch.npu.memory_allocated() < before
    tensor.untyped_storage().resize_(1024)
    assert torch.npu.memory_allocated() == before
    assert tensor.fill_(2).sum().item() == 512
    tensor.resize_(2, 300)
    assert tensor.shape == (2, 300)
    assert tensor.flatten()[:256].sum().item() == 512
    tensor.set_()
    assert tensor.numel() == 0
    other = torch.empty(0, device="npu").set_(torch.arange(4.0, device="npu"))
    assert other.sum().item() == 6


def test_a_parameter_can_be_moved_by_its_data():
    parameter = nn.Parameter(torch.ones(3))
    parameter.data = parameter.data.to("npu")
    assert parameter.is_npu
    (parameter * 2).sum().backward()
    assert parameter.grad.device == NPU


def test_recomputed_layers_see_the_same_random_numbers():
    tensor = torch.ones(1000, device="npu", requires_grad=True)
    result = checkpoint(lambda x: F.dropout(x, 0.5) * 3, tensor, use_reentrant=False)
    result.sum().backward()
    assert torch.equal(tensor.grad, result.detach())


def test_autocast_chooses_the_dtype():
    layer, tensor = nn.Linear(4, 4, device="npu"), numbers(2, 4)
    with torch.autocast("npu", dtype=torch.bfloat16):
        assert layer(tensor).dtype is torch.bfloat16
        assert torch.matmul(tensor, tensor.t()).dtype is torch.bfloat16
        assert F.softmax(tensor.bfloat16(), -1).dtype is torch.float32
        assert F.layer_norm(tensor.bfloat16(), (4,)).dtype is torch.float32
        assert torch_npu.npu_swiglu(tensor).dtype is torch.float32
        with torch.autocast("npu", enabled=False):
            assert layer(tensor).dtype is torch.float32
    with torch.npu.amp.autocast(dtype=torch.float16):
        assert torch.get_autocast_dtype("npu") is torch.float16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_equal_those_of_the_cpu(dtype):
    for layer, shape in (
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 8)),
        (nn.Conv2d(3, 6, 3, stride=2, groups=3, bias=False), (2, 3, 9, 9)),
        (nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)), (4, 3, 2, 4, 4)),
        (nn.ConvTranspose2d(3, 2, 2, stride=2), (2, 3, 4, 4)),
    ):
        layer = layer.to(dtype)
        host = torch.randn(shape).to(dtype).requires_grad_()
        twin, tensor = copy.deepcopy(layer).to("npu"), host.detach().to("npu").requires_grad_()
        layer(host).square().sum().backward()
        twin(tensor).square().sum().backward()
        torch.testing.assert_close(tensor.grad.cpu(), host.grad)
        torch.testing.assert_close(twin.weight.grad.cpu(), layer.weight.grad)


@pytest.mark.parametrize(
    "mask", [None, "causal", "bool", "additive"], ids=["all", "causal", "bool", "additive"]
)
@pytest.mark.parametrize("key_heads", [4, 2])
def test_scaled_dot_product_attention_equals_that_of_the_cpu(mask, key_heads):
    hosts = [torch.randn(2, n, 6, 8, requires_grad=True) for n in (4, key_heads, key_heads)]
    tensors = [host.detach().to("npu").requires_grad_() for host in hosts]
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    masks = {"bool": seen, "additive": torch.zeros(6, 6).masked_fill(~seen, -1e4)}
    settings = {"is_causal": mask == "causal", "enable_gqa": key_heads != 4}
    for parts in (hosts, tensors):
        own = masks.get(mask)
        own = own if own is None else own.to(parts[0].device)
        out = F.scaled_dot_product_attention(*parts, attn_mask=own, **settings)
        out.square().sum().backward()
    for tensor, host in zip(tensors, hosts, strict=True):
        torch.testing.assert_close(tensor.grad.cpu(), host.grad, atol=1e-5, rtol=1e-5)
    ran = torch_npu.simulation.stats().operators
    way = "scores in memory" if mask == "additive" else "fused"
    assert f"aten::scaled_dot_product_attention ({way})" in ran


def test_attention_with_dropout_is_reproducible():
    parts = [numbers(1, 2, 8, 8) for _ in range(3)]
    torch.npu.manual_seed(1)
    first = F.scaled_dot_product_attention(*parts, dropout_p=0.5)
    torch.npu.manual_seed(1)
    assert torch.equal(first, F.scaled_dot_product_attention(*parts, dropout_p=0.5))
    assert not torch.equal(first, F.scaled_dot_product_attention(*parts, dropout_p=0.5))


def test_interpolation_equals_that_of_the_cpu():
    picture = torch.randn(1, 3, 8, 8)
    settings = {"size": (16, 12), "mode": "bicubic", "antialias": True}
    ours = F.interpolate(picture.to("npu"), **settings)
    torch.testing.assert_close(ours.cpu(), F.interpolate(picture, **settings))


@pytest.mark.parametrize("way", [{"foreach": True}, {"fused": True}, {"foreach": False}])
def test_optimizers_step_as_on_the_cpu(way):
    losses = {}
    for device in ("cpu", "npu"):
        torch.manual_seed(1)
        layer = nn.Linear(8, 8).to(device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1, **way)
        inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(2)).to(device)
        losses[device] = []
        for _ in range(4):
            loss = layer(inputs).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
            losses[device].append(loss.item())
    assert losses["npu"] == pytest.approx(losses["cpu"], rel=1e-5)
    assert torch_npu.simulation.stats().fallbacks == {}


def test_what_the_process_did_is_counted():
    tensor = numbers(4)
    (tensor + tensor).relu_()
    tensor.sum().item()
    done = torch_npu.simulation.stats(reset=True)
    assert done.operators["aten::add.Tensor"] == done.operators["aten::relu_"] == 1
    (cause,) = done.syncs
    assert "item()" in cause
    assert "sim_basics.py" in done.sync_stacks[cause]
    assert "tensor.sum().item()" in done.sync_stacks[cause]
    assert done.fallbacks == done.float64 == done.collective_calls == {}
    assert torch_npu.simulation.stats().operators == {}


def test_a_sync_of_the_backward_pass_names_who_called_backward():
    class Waits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * grad.sum().item()

    tensor = torch.ones(3, device="npu", requires_grad=True)
    Waits.apply(tensor).sum().backward()
    (stack,) = torch_npu.simulation.stats().sync_stacks.values()
    assert "grad.sum().item()" in stack
    assert "Waits.apply(tensor).sum().backward()" in stack


def test_statistics_can_be_written(tmp_path):
    numbers(2).tolist()
    torch_npu.simulation.write_stats(tmp_path / "stats.json")
    assert "copy device to host" in (tmp_path / "stats.json").read_text()
