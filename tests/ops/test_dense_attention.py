import math

import pytest
import torch
import torch.nn.functional as F

from mllm_npu.ops.attention_options import RowOptions
from mllm_npu.ops.causal_blocks import LONGEST_ROW
from mllm_npu.ops.dense_attention import attend, attend_reference, band_mask
from mllm_npu.ops.ways import OPS, only_reference


def make_rows(queries=5, keys=5, heads=4, key_heads=2):
    sizes = ((heads, queries), (key_heads, keys), (key_heads, keys))
    return [torch.randn(2, *size, 8) for size in sizes]


def picked(*rows, **options):
    options = {"mask": None, "causal": False, "scale": 1.0} | options
    return OPS["attend"].pick(*rows, RowOptions(**options)).name


def test_the_reference_is_attention_written_out_for_two_keys():
    q, k, v = torch.tensor([2.0]), torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0])
    shapes = (part.view(1, 1, -1, 1) for part in (q, k, v))
    out = attend_reference(*shapes, mask=None, causal=False, scale=0.5)
    share = math.exp(3) / (math.exp(1) + math.exp(3))
    assert out.item() == pytest.approx(10 * (1 - share) + 20 * share)


@pytest.mark.parametrize("causal", [True, False])
def test_the_reference_is_torchs_own_attention(causal):
    rows = make_rows()
    out = attend_reference(*rows, mask=None, causal=causal, scale=0.3)
    truth = F.scaled_dot_product_attention(*rows, is_causal=causal, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, truth)


def test_short_causal_rows_that_learn_go_in_blocks_on_a_cpu_and_the_rest_to_torch():
    rows = [part.requires_grad_() for part in make_rows()]
    assert picked(*rows, causal=True) == "blocks"
    assert picked(*rows, causal=True, dropout=0.1) == "torch"
    assert picked(*rows) == "torch"
    assert picked(*rows, mask=band_mask(5, 2, torch.device("cpu"))) == "torch"
    long = make_rows(queries=LONGEST_ROW + 1, keys=LONGEST_ROW + 1, heads=1, key_heads=1)
    assert picked(*(part.requires_grad_() for part in long), causal=True) == "torch"
    assert picked(*make_rows(), causal=True) == "torch"
    with torch.no_grad():
        assert picked(*rows, causal=True) == "torch"
        assert picked(*(part.bfloat16() for part in rows), causal=True) == "blocks"
        with torch.autocast("cpu", torch.bfloat16):
            assert picked(*rows, causal=True) == "blocks"


def test_only_the_written_out_way_squashes_scores():
    assert picked(*make_rows(), softcap=2.0) == "written out"
    assert picked(*make_rows(), softcap=2.0, causal=True) == "written out"


def test_without_memory_torch_gives_the_shape():
    hollow = [part.to("meta") for part in make_rows(queries=3)]
    assert picked(*hollow, causal=True) == "torch"
    assert attend(*hollow, mask=None, causal=False, scale=1.0).shape == (2, 4, 3, 8)


def test_the_reference_can_be_asked_for_everywhere():
    rows = make_rows()
    with only_reference():
        out = attend(*rows, mask=None, causal=True, scale=0.3)
    assert torch.equal(out, attend_reference(*rows, mask=None, causal=True, scale=0.3))
