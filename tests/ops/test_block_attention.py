import dataclasses

import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.ops.attention import packed_attention
from mllm_npu.ops.attention_options import ScoreOptions
from mllm_npu.ops.block_attention import (
    _suits,
    block_attention,
    block_attention_reference,
    pack_blocks,
)
from mllm_npu.ops.causal_part import IN_BLOCKS
from mllm_npu.ops.packing import pack_sequences
from mllm_npu.ops.ways import calls, only_reference

ENDS = (5, 6, 46, 58)
LAYOUTS = [
    pytest.param(((1, 4), (4, 5), (5, 6), (10, 46), (50, 53)), id="several"),
    pytest.param(((0, 5), (5, 6), (6, 46), (46, 58)), id="whole sequences"),
    pytest.param(((7, 9), (9, 12)), id="next to each other"),
    pytest.param(((20, 21),), id="one token"),
    pytest.param((), id="none"),
]


def make_inputs(heads=4, key_heads=2, dtype=torch.float32):
    sizes = (heads, key_heads, key_heads)
    return [torch.randn(ENDS[-1], number, 8).to(dtype) for number in sizes]


def make_layout(blocks, device="cpu"):
    return pack_blocks(pack_sequences(ENDS, device), blocks)


@pytest.mark.parametrize("blocks", LAYOUTS)
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_two_causal_calls_are_the_reference_forwards_and_backwards(
    blocks, key_heads, with_gradients
):
    inputs, layout = make_inputs(key_heads=key_heads), make_layout(blocks)
    ours, truth = (
        with_gradients(lambda *parts, run=run: run(*parts, layout, scale=0.3), inputs)
        for run in (block_attention, block_attention_reference)
    )
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)


def test_narrow_inputs_are_near_the_truth(with_gradients, error_of):
    inputs, layout = make_inputs(dtype=torch.bfloat16), make_layout(((10, 46),))
    ours = with_gradients(lambda *parts: block_attention(*parts, layout, scale=0.3), inputs)
    truth = with_gradients(
        lambda *parts: block_attention_reference(*parts, layout, scale=0.3),
        [part.float() for part in inputs],
    )
    assert all(part.dtype == torch.bfloat16 for part in ours)
    assert all(error_of(one, other) < 0.01 for one, other in zip(ours, truth, strict=True))


def test_numerical_gradients_agree_in_double_precision():
    ends, blocks = (2, 7), ((0, 2), (3, 6))
    layout = pack_blocks(pack_sequences(ends, "cpu"), blocks)
    inputs = [torch.randn(7, n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 1, 1)]
    assert torch.autograd.gradcheck(
        lambda *parts: block_attention(*parts, layout, scale=0.7), inputs, atol=1e-6
    )


def test_the_second_call_runs_the_blocks_backwards_and_each_query_sees_what_is_behind_it():
    layout = make_layout(((1, 4), (5, 6), (8, 10)))
    assert layout.queries.tolist() == [2, 1, 8]
    assert layout.keys.tolist() == [3, 2, 9]
    assert layout.backwards.sequence_ends == (2, 3)
    assert make_layout(((5, 6),)).backwards is None


def test_the_reference_sees_the_whole_of_a_block_and_all_before_it():
    """With equal scores a token's result is the mean of the values it sees."""
    ends = (3, 7)
    layout = pack_blocks(pack_sequences(ends, "cpu"), [(4, 6)])
    q = k = torch.zeros(7, 1, 1)
    v = torch.tensor([1.0, 2, 3, 10, 20, 40, 80])[:, None, None]
    out = block_attention_reference(q, k, v, layout, scale=1.0)[:, 0, 0]
    expected = torch.tensor([1, 1.5, 2, 10, 70 / 3, 70 / 3, 150 / 4])
    torch.testing.assert_close(out, expected)


def test_without_blocks_it_is_causal_attention():
    inputs = make_inputs()
    plain = packed_attention(*inputs, pack_sequences(ENDS, "cpu"), scale=0.3)
    torch.testing.assert_close(block_attention(*inputs, make_layout(()), scale=0.3), plain)


@pytest.mark.parametrize(
    "blocks",
    [((3, 3),), ((4, 6),), ((50, 59),), ((58, 60),), ((8, 12), (11, 13)), ((20, 22), (10, 12))],
    ids=["empty", "two sequences", "past the end", "behind the end", "overlap", "falling"],
)
def test_blocks_that_do_not_fit_the_sequences_are_refused(blocks):
    with pytest.raises(RequestError, match="each lie inside one sequence"):
        make_layout(blocks)


def test_under_autocast_it_is_narrow_and_the_gradients_wide():
    inputs = [part.requires_grad_() for part in make_inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        out = block_attention(*inputs, make_layout(((10, 46),)), scale=0.3)
        out.float().sum().backward()  # its products stay in float32 here as well
    assert out.dtype == torch.bfloat16
    assert all(part.grad.dtype == torch.float32 for part in inputs)


def test_without_memory_it_gives_the_shape():
    hollow = [part.to("meta").requires_grad_() for part in make_inputs()]
    out = block_attention(*hollow, make_layout(((10, 46),), "meta"), scale=0.3)
    out.sum().backward()
    assert out.shape == hollow[0].shape
    assert hollow[1].grad.shape == hollow[1].shape


def test_it_is_counted_and_follows_the_reference():
    inputs, layout, before = make_inputs(), make_layout(((10, 46),)), calls()
    ours = block_attention(*inputs, layout, scale=0.3)
    with only_reference():
        truth = block_attention(*inputs, layout, scale=0.3)
    torch.testing.assert_close(ours, truth)
    assert dict(calls() - before) == {
        ("block_attention", "in blocks"): 1,
        ("block_attention", "reference"): 1,
    }


def test_a_way_must_take_both_calls():
    seen = []

    def takes_few(q, k, v, packing, options):
        seen.append(packing.sequence_ends)
        return len(packing.sequence_ends) < 3

    part = dataclasses.replace(IN_BLOCKS, suits=takes_few)
    inputs = make_inputs()
    packing = pack_sequences((30, 58), "cpu")
    few, many = (pack_blocks(packing, [(n, n + 2) for n in range(0, end, 2)]) for end in (4, 6))
    assert _suits(part, *inputs, few, ScoreOptions(scale=1.0))
    assert not _suits(part, *inputs, many, ScoreOptions(scale=1.0))
    assert seen == [(30, 58), (1, 2), (30, 58), (1, 2, 3)]
