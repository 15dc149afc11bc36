"""Without the device: what its kernels are told, and what comes of it in plain torch."""

from dataclasses import replace

import pytest
import torch

from mllm_npu.ops import attention_npu
from mllm_npu.ops.attention import packed_attention_reference
from mllm_npu.ops.attention_options import BandOptions, PackOptions, RowOptions, ScoreOptions
from mllm_npu.ops.block_attention import _attend_in_parts, block_attention_reference, pack_blocks
from mllm_npu.ops.dense_attention import attend_reference
from mllm_npu.ops.npu_extension import compressed_mask
from mllm_npu.ops.packing import pack_sequences, pair_sequences
from mllm_npu.ops.varlen_attention import varlen_attention_reference

CPU = torch.device("cpu")
ENDS = (5, 6, 46, 58)
BAND = {"left": None, "right": None}
PLAIN = PackOptions(scale=1.0)


def make_pack(tokens=58, heads=4, key_heads=2, width=8, dtype=torch.float32):
    return [torch.randn(tokens, n, width, dtype=dtype) for n in (heads, key_heads, key_heads)]


def make_rows(queries=6, keys=6):
    return [torch.randn(3, *size, 8) for size in ((4, queries), (2, keys), (2, keys))]


@pytest.mark.parametrize("window", [None, 1, 4, 40, 100])
def test_a_pack_is_attended_as_it_is(npu_kernels, with_gradients, window):
    inputs, packing = make_pack(), pack_sequences(ENDS, "cpu")
    options = PackOptions(scale=0.3, window=window)
    ours = with_gradients(
        lambda *parts: attention_npu.attend_pack(*parts, packing, options), inputs
    )
    truth = with_gradients(
        lambda *parts: packed_attention_reference(*parts, ENDS, scale=0.3, window=window), inputs
    )
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    (call,) = npu_kernels.calls
    assert call["layout"] == "TND"
    assert call["head_num"] == 4
    assert call["actual_seq_qlen"] == call["actual_seq_kvlen"] == list(ENDS)
    assert "_rows" not in vars(packing)


def test_a_plain_pack_is_told_the_scale_and_the_small_causal_mask(npu_kernels):
    packing = pack_sequences(ENDS, "cpu")
    attention_npu.attend_pack(*make_pack(), packing, PackOptions(scale=0.3, dropout=0.25))
    (call,) = npu_kernels.calls
    assert call["atten_mask"] is compressed_mask(CPU)
    assert (call["scale"], call["keep_prob"], call["sparse_mode"]) == (0.3, 0.75, 3)
    assert "pre_tockens" not in call


def test_a_window_is_a_band_that_ends_at_the_token_itself(npu_kernels):
    packing = pack_sequences(ENDS, "cpu")
    attention_npu.attend_pack(*make_pack(), packing, PackOptions(scale=1.0, window=7))
    attention_npu.attend_pack(*make_pack(), packing, PackOptions(scale=1.0, window=packing.longest))
    narrow, wide = npu_kernels.calls
    assert (narrow["sparse_mode"], narrow["pre_tockens"], narrow["next_tockens"]) == (4, 6, 0)
    assert narrow["atten_mask"] is compressed_mask(CPU)
    assert wide["sparse_mode"] == 3


def test_inputs_are_narrowed_by_hand_under_autocast(npu_kernels):
    with torch.autocast("cpu", torch.bfloat16):
        packed = attention_npu.attend_pack(*make_pack(), pack_sequences(ENDS, "cpu"), PLAIN)
        causal = RowOptions(mask=None, causal=True, scale=1.0)
        rows = attention_npu.attend(*make_rows(), causal)
    assert packed.dtype == rows.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        pytest.param({}, {"softcap": 2.0}, id="softcap"),
        pytest.param({}, {"dropout": 1.0}, id="nothing kept"),
        pytest.param({"dtype": torch.float64}, {}, id="float64"),
        pytest.param({"width": 776}, {}, id="width"),
        pytest.param({"heads": 258}, {}, id="heads"),
        pytest.param({"heads": 3}, {}, id="heads that cannot be shared out"),
    ],
)
def test_what_the_kernel_does_not_take_goes_another_way(changes, options):
    packing = pack_sequences(ENDS, "cpu")
    assert attention_npu.suits_pack(*make_pack(), packing, PackOptions(scale=1.0, window=3))
    options = PackOptions(scale=1.0, **options)
    assert not attention_npu.suits_pack(*make_pack(**changes), packing, options)


def test_narrow_values_mixed_dtypes_and_many_sequences_go_another_way():
    packing = pack_sequences(ENDS, "cpu")
    q, k, v = make_pack()
    assert not attention_npu.suits_pack(q, k, v[..., :4], packing, PLAIN)
    assert not attention_npu.suits_pack(q, k, v.bfloat16(), packing, PLAIN)
    many = pack_sequences(range(1, 2050), "cpu")
    assert not attention_npu.suits_pack(*make_pack(tokens=2049), many, PLAIN)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_npu.suits_pack(q, k, v.bfloat16(), packing, PLAIN)


@pytest.mark.parametrize(
    "shape", [None, (6, 6), (1, 1, 6, 6), (3, 1, 6, 6), (1, 4, 6, 6), (3, 4, 6, 6), (3, 1, 1, 6)]
)
def test_dense_rows_get_the_opposite_of_the_mask(npu_kernels, with_gradients, shape):
    inputs, mask = make_rows(), None
    if shape is not None:
        mask = torch.rand(shape) < 0.5
        mask[..., 0] = True
    seen = {"mask": mask, "causal": False, "scale": 0.3}
    ours = with_gradients(lambda *parts: attention_npu.attend(*parts, RowOptions(**seen)), inputs)
    truth = with_gradients(lambda *parts: attend_reference(*parts, **seen), inputs)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    (call,) = npu_kernels.calls
    assert call["layout"] == "BNSD"
    if mask is None:
        assert "atten_mask" not in call
    else:
        assert call["sparse_mode"] == 1
        given = tuple(call["atten_mask"].shape)
        assert given in {(1, 1, 6, 6), (3, 1, 6, 6), (3, 4, 6, 6)}


def test_causal_rows_get_the_small_mask(npu_kernels):
    inputs = make_rows()
    ours = attention_npu.attend(*inputs, RowOptions(mask=None, causal=True, scale=0.3))
    truth = attend_reference(*inputs, mask=None, causal=True, scale=0.3)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    assert npu_kernels.calls[0]["sparse_mode"] == 3


def test_rows_the_kernel_does_not_take():
    plain = RowOptions(mask=None, causal=False, scale=1.0)
    assert attention_npu.suits_rows(*make_rows(queries=2), plain)
    assert not attention_npu.suits_rows(*make_rows(queries=2), replace(plain, causal=True))
    assert not attention_npu.suits_rows(*make_rows(queries=0), plain)
    assert not attention_npu.suits_rows(*make_rows(keys=0), plain)
    assert not attention_npu.suits_rows(*make_rows(), replace(plain, softcap=1.0))
    assert not attention_npu.suits_rows(*make_rows(), replace(plain, mask=torch.zeros(6, 6)))


@pytest.mark.parametrize(
    ("ends_k", "band", "mode"),
    [
        pytest.param((7, 8, 60, 75), BAND, 0, id="full"),
        pytest.param((7, 8, 60, 75), BAND | {"right": 0}, 3, id="causal"),
        pytest.param((7, 8, 60, 75), {"left": 3, "right": 2}, 4, id="band"),
        pytest.param((7, 8, 60, 75), BAND | {"left": 3}, 4, id="nothing long ago"),
        pytest.param((4, 5, 20, 60), BAND, 0, id="less keys"),
    ],
)
def test_pairs_of_sequences(npu_kernels, with_gradients, ends_k, band, mode):
    inputs = [torch.randn(n, heads, 8) for n, heads in ((58, 4), (ends_k[-1], 2), (ends_k[-1], 2))]
    packing, options = pair_sequences(ENDS, ends_k, "cpu"), BandOptions(scale=0.3, **band)
    assert attention_npu.suits_varlen(*inputs, packing, options)
    ours = with_gradients(
        lambda *parts: attention_npu.attend_varlen(*parts, packing, options), inputs
    )
    truth = with_gradients(
        lambda *parts: varlen_attention_reference(*parts, ENDS, ends_k, scale=0.3, **band), inputs
    )
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    assert npu_kernels.calls[0].get("sparse_mode", 0) == mode


def test_a_query_without_any_key_goes_another_way():
    inputs = [torch.randn(9, 2, 8) for _ in range(3)]

    def suits(ends_q, ends_k, right):
        packing = pair_sequences(ends_q, ends_k, "cpu")
        options = BandOptions(left=None, right=right, scale=1.0)
        return attention_npu.suits_varlen(*inputs, packing, options)

    assert suits((4, 9), (4, 9), right=0)
    assert suits((4, 9), (3, 9), right=None)
    assert not suits((4, 9), (3, 9), right=0)
    assert not suits((4, 9), (0, 9), right=None)
    assert not suits((0, 9), (1, 9), right=None)


def test_blocks_are_attended_in_two_calls_and_go_back_through_the_merged_sums(
    npu_kernels, with_gradients
):
    inputs = make_pack()
    layout = pack_blocks(pack_sequences(ENDS, "cpu"), [(1, 4), (10, 30), (46, 58)])
    options = ScoreOptions(scale=0.3)
    assert attention_npu.PART.suits(*inputs, layout.packing, PLAIN)
    ours = with_gradients(
        lambda *parts: _attend_in_parts(attention_npu.PART, *parts, layout, options), inputs
    )
    truth = with_gradients(
        lambda *parts: block_attention_reference(*parts, layout, scale=0.3), inputs
    )
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)
    lengths = [call["actual_seq_qlen"] for call in npu_kernels.calls]
    assert lengths == [list(ENDS), [2, 21, 32]] * 2
    back = npu_kernels.calls[2]
    assert (back["scale_value"], back["sparse_mode"], back["keep_prob"]) == (0.3, 3, 1.0)
    assert back["softmax_max"].shape == back["softmax_sum"].shape == (58, 4, 8)
    assert torch.all(back["softmax_sum"] == 1)
