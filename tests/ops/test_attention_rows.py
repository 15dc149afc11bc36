import pytest
import torch

from mllm_npu.ops.attention import packed_attention_reference
from mllm_npu.ops.attention_options import PackOptions
from mllm_npu.ops.attention_rows import attend_in_rows
from mllm_npu.ops.packing import pack_sequences
from mllm_npu.ops.ways import calls

ENDS = (3, 43, 45, 80, 83)


def make_inputs(width=8, value_width=8):
    sizes = ((4, width), (2, width), (2, value_width))
    return [torch.randn(ENDS[-1], *size) for size in sizes]


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"softcap": 2.0}], ids=str)
@pytest.mark.parametrize("value_width", [8, 5])
def test_rows_of_unequal_groups_are_the_reference(with_gradients, options, value_width):
    inputs, packing = make_inputs(value_width=value_width), pack_sequences(ENDS, "cpu")
    assert len(packing.groups) > 1
    ours = with_gradients(
        lambda *parts: attend_in_rows(*parts, packing, PackOptions(scale=0.3, **options)), inputs
    )
    truth = with_gradients(
        lambda *parts: packed_attention_reference(*parts, ENDS, scale=0.3, **options), inputs
    )
    torch.testing.assert_close(ours, truth, atol=5e-6, rtol=1e-4)


def test_each_group_is_attended_once_by_the_devices_dense_way():
    packing, before = pack_sequences(ENDS, "cpu"), calls()
    inputs = [part.requires_grad_() for part in make_inputs()]
    attend_in_rows(*inputs, packing, PackOptions(scale=1.0))
    assert (calls() - before)["attend", "blocks"] == len(packing.groups)


def test_without_memory_it_gives_the_shape():
    hollow = [part.to("meta") for part in make_inputs(value_width=5)]
    out = attend_in_rows(*hollow, pack_sequences(ENDS, "meta"), PackOptions(scale=1.0))
    assert out.is_meta
    assert out.shape == (83, 4, 5)


def test_under_autocast_rows_are_narrow_before_they_are_copied():
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_in_rows(*make_inputs(), pack_sequences(ENDS, "cpu"), PackOptions(scale=1.0))
    assert out.dtype == torch.bfloat16
