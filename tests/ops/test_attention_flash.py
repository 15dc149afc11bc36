"""Without the device: which kernel would be taken, and what it would be told."""

import pytest
import torch

from mllm_npu.ops import attention_flash
from mllm_npu.ops.attention import packed_attention_reference
from mllm_npu.ops.attention_options import BandOptions, PackOptions, ScoreOptions
from mllm_npu.ops.block_attention import _attend_in_parts, block_attention_reference, pack_blocks
from mllm_npu.ops.causal_part import IN_BLOCKS, Attended
from mllm_npu.ops.packing import pack_sequences, pair_sequences
from mllm_npu.ops.varlen_attention import varlen_attention_reference

ENDS = (5, 6, 46, 58)


def make_pack(tokens=58, heads=4, key_heads=2, width=8, dtype=torch.bfloat16):
    return [torch.randn(tokens, n, width, dtype=dtype) for n in (heads, key_heads, key_heads)]


class Kernel:
    """Stands for a kernel of either package: computes slowly, remembers what it was told."""

    def __init__(self):
        self.told = []

    def __call__(self, q, k, v, bounds_q, bounds_k, longest_q, longest_k, **options):
        self.told.append({"bounds": bounds_q, "longest": (longest_q, longest_k), **options})
        assert bounds_q.dtype == bounds_k.dtype == torch.int32
        left, right = (None if side == -1 else side for side in options["window_size"])
        scale = options["scale"] if "scale" in options else options["softmax_scale"]
        ends = (bounds[1:].tolist() for bounds in (bounds_q, bounds_k))
        return varlen_attention_reference(q, k, v, *ends, left=left, right=right, scale=scale)


class SharingKernel(Kernel):
    """As torch's from 2.12 on: told of fewer key heads."""

    def __call__(self, *args, enable_gqa, **options):
        out = super().__call__(*args, **options)
        self.told[-1]["enable_gqa"] = enable_gqa
        return out


@pytest.fixture
def able(monkeypatch):
    """A device that is new enough."""
    monkeypatch.setattr(attention_flash, "is_able", lambda device: True)


@pytest.fixture
def kernels(monkeypatch, able):
    """Puts a kernel in the place of each package; None for one that is missing."""

    def put(library, torch_kernel):
        monkeypatch.setattr(attention_flash, "library", lambda: library)
        monkeypatch.setattr(attention_flash, "torch_kernel", lambda: torch_kernel)

    return put


def suits(inputs, **options):
    packing = pack_sequences((inputs[0].shape[0],), "cpu")
    rules = (attention_flash.suits_library, attention_flash.suits_torch)
    return tuple(suits(*inputs, packing, PackOptions(scale=1.0, **options)) for suits in rules)


def test_the_kernels_that_are_there_are_taken(kernels):
    for library, torch_kernel in ((None, None), (None, Kernel()), (Kernel(), None)):
        kernels(library, torch_kernel)
        assert suits(make_pack()) == (library is not None, torch_kernel is not None)


def test_only_the_library_can_drop_shares(kernels):
    kernels(Kernel(), Kernel())
    assert suits(make_pack()) == (True, True)
    assert suits(make_pack(), dropout=0.1) == (True, False)
    assert suits(make_pack(), softcap=2.0) == (False, False)


@pytest.mark.parametrize(
    "changes",
    [{"dtype": torch.float32}, {"width": 12}, {"width": 264}, {"heads": 3}, {"tokens": 0}],
    ids=str,
)
def test_what_the_kernels_do_not_take_goes_another_way(kernels, changes):
    kernels(Kernel(), Kernel())
    inputs, packing = make_pack(**changes), pack_sequences(ENDS, "cpu")
    assert not attention_flash.suits_library(*inputs, packing, PackOptions(scale=1.0))
    assert not attention_flash.suits_torch(*inputs, packing, PackOptions(scale=1.0))
    assert not attention_flash.PART.suits(*inputs, packing, ScoreOptions(scale=1.0))
    causal = BandOptions(left=None, right=0, scale=1.0)
    assert not attention_flash.suits_library(*inputs, packing.pairs, causal)


def test_an_old_device_goes_another_way(kernels, monkeypatch):
    kernels(Kernel(), Kernel())
    monkeypatch.setattr(attention_flash, "is_able", lambda device: False)
    assert suits(make_pack()) == (False, False)


def test_wide_inputs_are_taken_under_autocast_and_narrowed(kernels):
    kernels(Kernel(), None)
    inputs = make_pack(dtype=torch.float32)
    assert suits(inputs) == (False, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert suits(inputs) == (True, False)
        packing = pack_sequences(ENDS, "cpu")
        out = attention_flash.attend_pack(*inputs, packing, PackOptions(scale=1.0))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("which", ["library", "torch", "older torch"])
@pytest.mark.parametrize("window", [None, 4, 100])
def test_a_pack_is_told_as_bounds_and_a_window(kernels, error_of, which, window):
    kernel = SharingKernel() if which == "torch" else Kernel()
    kernels(*((kernel, None) if which == "library" else (None, kernel)))
    inputs, packing = make_pack(), pack_sequences(ENDS, "cpu")
    out = attention_flash.attend_pack(*inputs, packing, PackOptions(scale=0.3, window=window))
    wide = [part.float() for part in inputs]
    truth = packed_attention_reference(*wide, ENDS, scale=0.3, window=window)
    assert error_of(out, truth) < 0.02
    (told,) = kernel.told
    assert told["bounds"].tolist() == [0, *ENDS]
    assert told["longest"] == (40, 40)
    assert told["window_size"] == ((3, 0) if window == 4 else (-1, 0))
    if which == "library":
        assert (told["causal"], told["dropout_p"], told["softmax_scale"]) == (True, 0.0, 0.3)
    else:
        assert told["scale"] == 0.3
        assert told.get("enable_gqa") == (True if which == "torch" else None)


def test_pairs_of_sequences_are_told_as_two_bounds(kernels, error_of):
    kernel = Kernel()
    kernels(kernel, None)
    ends_k = (7, 8, 60, 75)
    inputs = [torch.randn(n, heads, 8).bfloat16() for n, heads in ((58, 4), (75, 2), (75, 2))]
    band = {"left": None, "right": 5, "scale": 0.3}
    packing = pair_sequences(ENDS, ends_k, "cpu")
    out = attention_flash.attend_varlen(*inputs, packing, BandOptions(**band, dropout=0.1))
    truth = varlen_attention_reference(*(part.float() for part in inputs), ENDS, ends_k, **band)
    assert error_of(out, truth) < 0.02
    (told,) = kernel.told
    assert (told["longest"], told["window_size"]) == ((40, 52), (-1, 5))
    assert (told["causal"], told["dropout_p"]) == (False, 0.1)


def test_a_part_goes_through_torchs_own_operators(monkeypatch, able, with_gradients):
    """Their arguments are checked by torch itself; the stand-ins compute what they mean."""
    packing, told = pack_sequences(ENDS, "cpu"), []

    def packing_of(bounds):
        return pack_sequences(bounds[1:].tolist(), "cpu")

    def forward(q, k, v, bounds, *others, scale):
        told.append((bounds.tolist(), *others[1:]))
        out, lse = IN_BLOCKS.forward(q, k, v, packing_of(bounds), scale)
        return out.to(q.dtype), lse.transpose(0, 1), None, None, None

    def backward(grad, q, k, v, out, lse, bounds, *others, scale):
        told.append((bounds.tolist(), *others[1:5]))
        assert lse.is_contiguous()
        lse = lse.transpose(0, 1)
        whole = Attended(q_THE=q, k_TJE=k, v_TJE=v, out_THE=out, lse_TH=lse)
        return IN_BLOCKS.backward(grad, whole, packing_of(bounds), scale)

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", forward)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", backward)
    layout, inputs = pack_blocks(packing, [(10, 30)]), make_pack(dtype=torch.float32)
    ours = with_gradients(
        lambda *parts: _attend_in_parts(
            attention_flash.PART, *parts, layout, ScoreOptions(scale=0.3)
        ),
        inputs,
    )
    truth = with_gradients(
        lambda *parts: block_attention_reference(*parts, layout, scale=0.3), inputs
    )
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    assert told[0] == ([0, *ENDS], 40, 40, 0.0, True, False)
    assert told[1] == ([0, 19], 19, 19, 0.0, True, False)
    assert told[2] == ([0, *ENDS], 40, 40, 0.0, True)


def test_the_operators_have_the_arguments_that_are_given():
    forward = torch.ops.aten._flash_attention_forward.default._schema
    backward = torch.ops.aten._flash_attention_backward.default._schema
    names = [argument.name for argument in forward.arguments][:10]
    assert names[3:] == [
        *("cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal", "return_debug_mask"),
    ]
    names = [argument.name for argument in backward.arguments]
    assert names[4:14] == [
        *("out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal", "rng_state", "unused"),
    ]


def test_a_package_is_looked_for_with_the_arguments_that_are_needed(monkeypatch, tmp_path):
    (tmp_path / "flash_for_test.py").write_text("def attend(q, window_size): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert attention_flash._find("flash_for_test", "attend", {"window_size"}) is not None
    assert attention_flash._find("flash_for_test", "attend", {"enable_gqa"}) is None
    assert attention_flash._find("flash_for_test", "missing", set()) is None
    assert attention_flash._find("no_such_package_at_all", "attend", set()) is None


def test_this_torch_has_the_kernel_in_the_form_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    attention_flash.torch_kernel.cache_clear()
    assert attention_flash.torch_kernel() is not None
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    attention_flash.torch_kernel.cache_clear()
    assert attention_flash.torch_kernel() is None
    attention_flash.torch_kernel.cache_clear()


def test_devices_from_ampere_on_are_able(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, device.index))
    assert not attention_flash.is_able(torch.device("cuda", 5))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert attention_flash.is_able(torch.device("cuda", 6))
