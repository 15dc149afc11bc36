import pytest
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from mllm_npu.errors import ConfigError
from mllm_npu.models.language_model.attention_hook import (
    ATTENTION_NAME,
    CacheLayout,
    attention_forward,
)
from mllm_npu.ops.attention import NEVER_VISIBLE, packed_attention_reference
from mllm_npu.ops.packing import pack_sequences


def make_inputs(rows=1, tokens=6):
    return [torch.randn(rows, heads, tokens, 8) for heads in (4, 2, 2)]


def make_layout(queries, keys, **flags):
    flags = {"first": False, "sees_all": False, "reach": queries} | flags
    return CacheLayout(
        query_positions=torch.tensor(queries),
        key_positions=torch.tensor(keys),
        reach=torch.tensor(flags.pop("reach")),
        **flags,
    )


def test_it_is_registered_without_a_mask_of_its_own():
    assert AttentionInterface()[ATTENTION_NAME] is attention_forward
    assert ATTENTION_NAME not in AttentionMaskInterface()


def test_a_packed_row_is_attended_by_sequence():
    q, k, v = make_inputs()
    receipts = []
    packing = pack_sequences((2, 6), "cpu", receipts=receipts)
    out, weights = attention_forward(
        nn.Identity(), q, k, v, None, sliding_window=3, sequence_layout=packing
    )
    truth = packed_attention_reference(
        *(part[0].transpose(0, 1) for part in (q, k, v)), (2, 6), scale=8**-0.5, window=3
    )
    assert weights is None
    assert receipts == [3]
    torch.testing.assert_close(out[0], truth)


def test_without_a_layout_it_refuses_instead_of_mixing_sequences():
    with pytest.raises(ConfigError, match=r"Identity did not pass sequence_layout.*per_sequence"):
        attention_forward(nn.Identity(), *make_inputs(), None)


@pytest.mark.parametrize("name", ["s_aux", "position_bias"])
def test_what_it_does_not_know_is_refused(name):
    layout = pack_sequences((6,), "cpu")
    with pytest.raises(ConfigError, match=name):
        attention_forward(
            nn.Identity(), *make_inputs(), None, sequence_layout=layout, **{name: torch.ones(1)}
        )


def test_one_new_token_or_a_fresh_row_needs_no_mask():
    assert make_layout([[4]], [[0, 1, 2, 3, 4]], sees_all=True).mask(None) is None
    assert make_layout([[0, 1]], [[0, 1]], first=True).mask(None) is None
    assert make_layout([[0, 1]], [[0, 1]], first=True).mask(7) is None


def test_masks_are_made_once_per_window_and_follow_positions():
    layout = make_layout([[3, 4]], [[0, 1, 2, NEVER_VISIBLE, 3, 4]])
    assert layout.mask(None)[0, 0].int().tolist() == [[1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1]]
    assert layout.mask(2)[0, 0].int().tolist() == [[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert layout.mask(2) is layout.mask(2)
    assert set(layout.masks) == {None, 2}


def test_a_window_narrower_than_the_cache_masks_even_a_single_token():
    layout = make_layout([[4]], [[0, 1, 2, 3, 4]], sees_all=True)
    assert layout.mask(2)[0, 0].int().tolist() == [[0, 0, 0, 1, 1]]


def test_a_token_of_a_block_sees_to_its_end_and_no_further_back_than_its_window():
    layout = make_layout([[0, 1, 2, 3]], [[0, 1, 2, 3]], reach=[[0, 2, 2, 3]])
    seen = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert layout.mask(None)[0, 0].int().tolist() == seen
    windowed = [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert layout.mask(2)[0, 0].int().tolist() == windowed
