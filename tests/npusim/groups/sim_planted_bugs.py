"""Every mistake an NPU would punish, or worse would not, is caught by the simulated one."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
import torch_npu
from torch import nn
from torch_npu import simulation

SYNC = "called a synchronizing NPU operation"
attend = torch_npu.npu_fusion_attention


@contextlib.contextmanager
def caught(words, kind=RuntimeError):
    with pytest.raises(kind, match=words):
        yield


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device="npu").to(dtype)


def causal_mask():
    return torch.ones(2048, 2048, dtype=torch.bool, device="npu").triu_(1)


# Devices.


def test_a_forgotten_move_of_the_input():
    with caught("Expected all tensors to be on the same device"):
        nn.Linear(8, 8).to("npu")(torch.randn(4, 8))


def test_a_position_table_left_on_the_cpu():
    with caught("Expected all tensors to be on the same device"):
        numbers(4, 8) * torch.arange(8)


def test_a_picture_left_on_the_cpu():
    with caught("Expected all tensors to be on the same device"):
        nn.Conv2d(3, 4, 3).to("npu")(torch.randn(1, 3, 8, 8))
    with caught("Expected all tensors to be on the same device"):
        nn.Conv2d(3, 4, 3)(torch.randn(1, 3, 8, 8).to("npu"))


def test_keys_left_on_the_cpu():
    query = numbers(1, 2, 4, 8)
    with caught("device"):
        F.scaled_dot_product_attention(query, query.cpu(), query.cpu())
    with caught("Expected all tensors to be on the same device"):
        attend(query, query.cpu(), query.cpu(), 2, "BNSD")
    with caught("Expected all tensors to be on the same device"):
        torch_npu.npu_rms_norm(query, torch.ones(8))


def test_a_fused_operator_on_the_cpu():
    with caught("Could not run 'npu::npu_swiglu' with arguments from the 'CPU' backend"):
        torch_npu.npu_swiglu(torch.ones(4))


def test_tensors_of_two_devices():
    with caught("found at least two devices, npu:0 and npu:1"):
        numbers(4) + torch.ones(4, device="npu:1")


def test_an_update_of_a_host_tensor_from_the_device():
    with caught("Expected all tensors to be on the same device"):
        torch.zeros(()).add_(numbers(1)[0])


def test_a_device_that_is_written_out():
    with caught("not compiled with CUDA", kind=AssertionError):
        torch.zeros(2, device="cuda")


def test_calls_of_cuda_from_the_code_under_test():
    torch.cuda.synchronize  # noqa: B018 - naming it is harmless
    simulation.forbid_cuda(__file__.rpartition("/")[0])
    for call in (
        torch.cuda.synchronize,
        torch.cuda.empty_cache,
        torch.cuda.max_memory_allocated,
        lambda: torch.cuda.manual_seed_all(1),
    ):
        with caught("torch.cuda.* was called with an NPU as accelerator"):
            call_from_here(call)
    with caught("autocast"):
        torch.autocast("cuda", dtype=torch.bfloat16)


def call_from_here(call):
    """The caller is this file, also for the functions of torch themselves."""
    return call()


def test_calls_of_cuda_from_elsewhere_are_left_alone(tmp_path):
    simulation.forbid_cuda(tmp_path)
    torch.cuda.empty_cache()
    torch.cuda.manual_seed_all(1)


# Waits of the host.


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda x: x.sum().item(), id="item"),
        pytest.param(lambda x: bool((x > 0).any()), id="bool"),
        pytest.param(lambda x: float(x[0]), id="float"),
        pytest.param(lambda x: x.tolist(), id="tolist"),
        pytest.param(lambda x: x.cpu(), id="cpu"),
        pytest.param(lambda x: x.nonzero(), id="nonzero"),
        pytest.param(lambda x: torch.where(x > 0), id="where of one argument"),
        pytest.param(lambda x: x[x > 0], id="index by a mask"),
        pytest.param(lambda x: x.masked_select(x > 0), id="masked_select"),
        pytest.param(lambda x: x.unique(), id="unique"),
        pytest.param(lambda x: torch.unique_consecutive(x), id="unique_consecutive"),
        pytest.param(lambda x: x.repeat_interleave(x.abs().long()), id="repeat_interleave"),
        pytest.param(lambda x: x[torch.tensor([0, 1])], id="index on the CPU"),
        pytest.param(lambda x: torch.equal(x, x), id="equal"),
        pytest.param(lambda x: torch.allclose(x, x), id="allclose"),
        pytest.param(lambda x: torch.bincount(x.abs().long()), id="bincount"),
        pytest.param(lambda x: torch.ones(100).to("npu"), id="blocking copy"),
        pytest.param(lambda x: torch.ones(9).to("npu", non_blocking=True), id="not pinned"),
        pytest.param(lambda x: torch.ones(9).pin_memory().to("npu"), id="pinned but blocking"),
        pytest.param(lambda x: torch.tensor(3.0, device="npu"), id="a number"),
        pytest.param(lambda x: x.copy_(torch.ones(8)), id="copy_"),
        pytest.param(lambda x: torch.empty(8).copy_(x), id="copy_ to the host"),
        pytest.param(lambda x: print(x), id="print"),  # noqa: T201 - the mistake
        pytest.param(lambda x: range(x.abs().long()[0]), id="range"),
    ],
)
def test_waits_of_the_host(wait):
    tensor = numbers(8)
    torch.npu.set_sync_debug_mode("error")
    with caught(SYNC):
        wait(tensor)


def test_waits_can_be_warned_of():
    torch.npu.set_sync_debug_mode("warn")
    assert torch.npu.get_sync_debug_mode() == 1
    with pytest.warns(UserWarning, match=SYNC):
        numbers(2).sum().item()
    with caught("invalid value of debug_mode"):
        torch.npu.set_sync_debug_mode("loud")


def test_what_does_not_wait_is_not_called_a_wait():
    tensor = numbers(8)
    torch.npu.set_sync_debug_mode("error")
    tensor.repeat_interleave(torch.full((8,), 2, device="npu"), output_size=16)
    tensor.masked_fill_(tensor > 0, 0.0)
    tensor.index_select(0, torch.zeros(2, device="npu", dtype=torch.long))
    torch.where(tensor > 0, tensor, 0.0).clamp_(max=1).cumsum(0).sort()
    tensor.add_(torch.tensor(2.0))
    torch.npu.synchronize()


# Numbers the device does not have.


def test_float64():
    simulation.forbid_float64()
    for make in (
        lambda: torch.linspace(0, 1, 4, dtype=torch.float64, device="npu"),
        lambda: numbers(4).double(),
        lambda: torch.tensor([1.0], dtype=torch.float64).to("npu"),
        lambda: numbers(4).sum(dtype=torch.float64),
    ):
        with caught("float64 or complex tensor"):
            make()


def test_complex_rotary_embedding():
    simulation.forbid_float64()
    with caught("float64 or complex tensor"):
        torch.view_as_complex(numbers(4, 2)) * 2
    with caught("float64 or complex tensor"):
        torch.polar(numbers(4), numbers(4))


def test_float64_is_counted_where_it_is_allowed():
    simulation.forbid_float64(False)
    numbers(4).double().sum()
    assert any("aten::sum" in name for name in simulation.stats().float64)


# Operators, random numbers, memory.


def test_operators_without_a_kernel():
    simulation.forbid_fallbacks()
    for call in (
        lambda: torch.empty(3, device="npu").cauchy_(),
        lambda: F.huber_loss(numbers(3), numbers(3)),
        lambda: torch.logcumsumexp(numbers(3), 0),
    ):
        with caught("has no NPU kernel and would run on the CPU", kind=NotImplementedError):
            call()
    simulation.forbid_fallbacks(False)
    F.huber_loss(numbers(3), numbers(3))
    done = simulation.stats()
    assert done.fallbacks.keys() >= {"aten::huber_loss"}
    assert "CPU fallback of aten::huber_loss" in done.syncs


def test_operators_that_were_forbidden():
    simulation.forbid_operators("aten::erf", "aten::mm")
    with caught("aten::mm was forbidden", kind=NotImplementedError):
        numbers(2, 2) @ numbers(2, 2)
    simulation.forbid_operators()
    assert (numbers(2, 2) @ numbers(2, 2)).shape == (2, 2)


def test_generators_of_the_other_side():
    host, device = torch.Generator(), torch.Generator("npu")
    with caught("Expected a 'npu' device type for generator but found 'cpu'"):
        torch.rand(2, device="npu", generator=host)
    with caught("Expected all tensors to be on the same device"):
        torch.rand(2, generator=device)


def test_memory_runs_out_at_the_limit():
    simulation.set_memory_limit(torch.npu.memory_allocated() + (8 << 20))
    words = r"NPU out of memory. Tried to allocate 64.00 MiB \(NPU 0; .* already allocated"
    with caught(words, kind=torch.OutOfMemoryError):
        torch.empty(16 << 20, device="npu")
    half = torch.empty(1 << 20, device="npu")
    with caught("NPU out of memory", kind=torch.OutOfMemoryError):
        torch.cat([half, half, half])
    simulation.set_memory_limit(None)
    assert torch.cat([half, half]).numel() == 2 << 20


# Fused attention.


def test_a_sparse_mode_without_its_mask():
    query = numbers(2, 16, 4, 32)
    wrong = (("sparse_mode", 1), ("sparse_mode", 2), ("sparse_mode", 3), ("pre_tockens", 4))
    for name, value in wrong:
        with caught("without atten_mask"):
            attend(query, query, query, 4, "BSND", **{name: value})


def test_inverted_masks():
    query = numbers(2, 16, 4, 32)
    seen = torch.ones(2048, 2048, dtype=torch.bool, device="npu").tril_()
    for mode in (2, 3, 4):
        with caught("opposite of SDPA's mask"):
            attend(query, query, query, 4, "BSND", sparse_mode=mode, atten_mask=seen)
    with caught("every query is hidden from its own key"):
        attend(query, query, query, 4, "BSND", atten_mask=seen[:16, :16].clone())


def test_masks_of_a_wrong_size_or_dtype():
    query = numbers(2, 16, 4, 32)
    whole = torch.zeros(16, 16, dtype=torch.bool, device="npu").triu_(1)
    for mode, mask, words in (
        (2, whole, r"compressed atten_mask \[2048, 2048\]"),
        (3, causal_mask()[:1024, :1024], r"compressed atten_mask \[2048, 2048\]"),
        (1, whole[:8], "atten_mask must be"),
        (1, whole.expand(4, 1, 16, 16), "atten_mask must be"),
        (1, whole.expand(1, 4, 16, 16), "atten_mask must be"),
        (1, whole.expand(2, 16, 16), "atten_mask must be"),
        (1, numbers(16, 16), "atten_mask must be bool or uint8"),
        (0, whole.long(), "atten_mask must be bool or uint8"),
    ):
        with caught(words):
            attend(query, query, query, 4, "BSND", sparse_mode=mode, atten_mask=mask)


def test_wrong_heads():
    query = numbers(2, 16, 4, 32)
    with caught("head_num is 8, but query has 4 heads"):
        attend(query, query, query, 8, "BSND")
    with caught("head_num is 16, but query has 4 heads"):
        attend(query, query, query, 16, "BSND")
    with caught("not a multiple of the key heads 3"):
        attend(query, query[:, :, :3], query[:, :, :3], 4, "BSND")
    with caught("does not divide"):
        attend(query.flatten(2), query.flatten(2), query.flatten(2), 7, "BSH")
    with caught("key has 4 heads, value 2"):
        attend(query, query, query[:, :, :2], 4, "BSND")


def test_layouts_that_are_not_meant():
    query = numbers(2, 16, 4, 32)
    with caught("The input_layout should be"):
        attend(query, query, query, 4, "BHSD")
    with caught("should be 3 dimensional for layout BSH"):
        attend(query, query, query, 4, "BSH")


def test_ends_of_sequences_that_are_not_ends():
    pack = numbers(32, 4, 32)
    settings = {"sparse_mode": 3, "atten_mask": causal_mask()}

    def with_ends(ends):
        return attend(
            pack, pack, pack, 4, "TND", actual_seq_qlen=ends, actual_seq_kvlen=ends, **settings
        )

    with caught("must hold cumulative ends, which do not fall"):
        with_ends([20, 12])
    with caught("lengths in place of ends"):
        with_ends([16, 16])
    with caught("lengths in place of ends"):
        with_ends([12, 20])
    with caught("must hold cumulative ends"):
        with_ends([0, 12, 32, 40])
    with caught("must be tuple of ints, not Tensor", kind=TypeError):
        with_ends(torch.tensor([12, 32]))
    with caught("TND needs actual_seq_qlen"):
        attend(pack, pack, pack, 4, "TND", **settings)
    with caught("differ in length"):
        attend(pack, pack, pack, 4, "TND", actual_seq_qlen=[32], actual_seq_kvlen=[12, 32])


def test_dtypes_and_numbers_that_do_not_fit():
    query = numbers(2, 16, 4, 32)
    with caught("must have one dtype"):
        attend(query.bfloat16(), query, query, 4, "BSND")
    with caught("keep_prob"):
        attend(query, query, query, 4, "BSND", keep_prob=0.0)
    with caught("sparse_mode value must be in range"):
        attend(query, query, query, 4, "BSND", sparse_mode=9)
    with caught("not simulated", kind=NotImplementedError):
        attend(query, query, query, 4, "BSND", pse=numbers(2, 4, 16, 16))


# The other fused operators.


def test_wrong_arguments_of_the_smaller_operators():
    tensor = numbers(2, 6, 4, 8)
    with caught("gamma must have the trailing shape"):
        torch_npu.npu_rms_norm(tensor, numbers(4))
    with caught("gamma has the input's dtype or float32"):
        torch_npu.npu_rms_norm(tensor, numbers(8, dtype=torch.bfloat16))
    with caught("must end with the even head width"):
        torch_npu.npu_rotary_mul(tensor, numbers(1, 6, 1, 4), numbers(1, 6, 1, 4))
    with caught("does not broadcast"):
        torch_npu.npu_rotary_mul(tensor, numbers(1, 5, 1, 8), numbers(1, 5, 1, 8))
    with caught("must have one dtype"):
        table = numbers(1, 6, 1, 8)
        torch_npu.npu_rotary_mul(tensor.bfloat16(), table, table)
    with caught("must be even"):
        torch_npu.npu_swiglu(numbers(3, 5))
    with caught("must not fall"):
        torch_npu.npu_grouped_matmul(
            [numbers(6, 2)], [numbers(2, 2, 3)], group_list=[4, 2], split_item=2, group_type=0
        )
