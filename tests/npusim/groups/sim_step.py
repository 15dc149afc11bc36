"""A training step on the device gives the losses of the CPU, and never waits for the device."""

import functools
import io
import time

import pytest
import torch
import torch_npu
from tiny_transformer import FusedOps, PlainOps, TinyTraining

STEPS = 8


def plain(device):
    return PlainOps


def fused(device):
    return FusedOps(torch_npu, device)


@functools.cache
def losses_on_cpu(dtype):
    return TinyTraining("cpu", plain, dtype=dtype).losses(STEPS)


@pytest.mark.parametrize("make_ops", [plain, fused])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_losses_are_those_of_the_cpu(make_ops, dtype, close):
    ours = TinyTraining("npu", make_ops, dtype=dtype).losses(STEPS)
    assert ours == pytest.approx(losses_on_cpu(dtype), rel=close)
    assert ours[-1] < 0.8 * ours[0]


def test_recomputing_changes_nothing():
    whole = TinyTraining("npu", fused, recompute=False).losses(2)
    assert whole == pytest.approx(TinyTraining("npu", fused).losses(2), rel=1e-6)


@pytest.mark.parametrize("make_ops", [plain, fused])
def test_a_step_does_not_wait_and_uses_kernels_of_the_device_only(make_ops):
    training = TinyTraining("npu", make_ops, dtype=torch.bfloat16)
    training.step()
    torch_npu.simulation.stats(reset=True)
    torch_npu.simulation.forbid_fallbacks()
    torch_npu.simulation.forbid_float64()
    torch.npu.set_sync_debug_mode("error")
    training.step()
    done = torch_npu.simulation.stats()
    assert done.syncs == done.fallbacks == done.float64 == {}
    if make_ops is fused:
        # Once forward and once more when the backward pass recomputes the layer.
        assert done.operators["npu::npu_fusion_attention"] == 8
        assert done.operators["npu::npu_fusion_attention_grad"] == 4
        assert done.operators["npu::npu_rms_norm_backward"] == 8


def test_a_wait_in_a_step_is_found():
    class Logging(TinyTraining):
        def step(self):
            return torch.tensor(super().step().item())

    training = Logging("npu", fused)
    torch.npu.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchronizing NPU operation"):
        training.step()


def test_a_checkpoint_of_the_device_goes_on_anywhere():
    first = TinyTraining("npu", fused)
    first.losses(2)
    file = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "opt": first.optimizer.state_dict()}, file)
    expected = first.losses(3)
    for device, make_ops, close in (("npu", fused, 0), ("cpu", plain, 1e-5)):
        file.seek(0)
        state = torch.load(file, map_location=device, weights_only=True)
        other = TinyTraining(device, make_ops)
        other.model.load_state_dict(state["model"])
        other.optimizer.load_state_dict(state["opt"])
        assert other.losses(3) == pytest.approx(expected, rel=close, abs=0)


def seconds_per_step(device, make_ops):
    training = TinyTraining(device, make_ops, dtype=torch.bfloat16)
    training.losses(2)
    begin = time.process_time()
    training.losses(6)
    return (time.process_time() - begin) / 6


def test_the_simulation_costs_little():
    on_cpu = min(seconds_per_step("cpu", plain) for _ in range(2))
    for make_ops in (plain, fused):
        ours = min(seconds_per_step("npu", make_ops) for _ in range(2))
        # Measured: about 1.2 times; a busy machine gets some more.
        assert ours < 2.5 * on_cpu, f"{ours * 1e3:.0f} ms a step, {on_cpu * 1e3:.0f} ms on the CPU"
