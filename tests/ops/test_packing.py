import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.ops.packing import (
    gradients_to_rows,
    pack_sequences,
    pair_sequences,
    to_rows,
    to_tokens,
)

UNEQUAL = (3, 4, 60, 64, 165)


def test_rows_hold_every_token_in_order_and_repeat_the_last_one_as_padding():
    packing = pack_sequences((2, 5), "cpu")
    rows = to_rows(torch.arange(5), packing).view(2, 3)
    assert rows.tolist() == [[2, 3, 4], [0, 1, 1]]


@pytest.mark.parametrize("ends", [(4,), (2, 4, 6), (1, 2), UNEQUAL])
@pytest.mark.parametrize("one_group", [False, True])
def test_tokens_survive_the_way_to_rows_and_back(ends, one_group):
    packing = pack_sequences(ends, "cpu", one_group=one_group)
    tokens = torch.randn(ends[-1], 2)
    assert torch.equal(to_tokens(to_rows(tokens, packing), packing), tokens)


def test_very_unequal_lengths_run_in_groups_with_little_padding():
    packing = pack_sequences(UNEQUAL, "cpu")
    assert len(packing.groups) == 3
    assert packing.gather.numel() < 1.2 * UNEQUAL[-1]
    assert pack_sequences(UNEQUAL, "cpu", one_group=True).gather.numel() == 5 * 101
    assert packing.longest == 101


def test_equal_lengths_are_not_copied():
    packing = pack_sequences((3, 6, 9), "cpu")
    tokens = torch.randn(9, 2)
    assert packing.in_order
    assert to_rows(tokens, packing) is tokens
    assert to_tokens(tokens, packing) is tokens


def test_lengths_in_another_order_are_copied_although_nothing_is_padded():
    assert not pack_sequences((3, 40), "cpu").in_order


def test_gradients_equal_those_of_plain_indexing():
    packing = pack_sequences((2, 5, 6), "cpu")
    weights = torch.randn(6, 2)
    plain, ours = (torch.linspace(0, 1, 12).view(6, 2).requires_grad_() for _ in range(2))
    (plain.index_select(0, packing.gather)[packing.places].square() * weights).sum().backward()
    (to_tokens(to_rows(ours, packing).square(), packing) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("ends", [(), (3, 3), (3, 2), (0,)])
def test_ends_that_do_not_rise_are_refused(ends):
    with pytest.raises(RequestError, match="rising ends"):
        pack_sequences(ends, "cpu")


def test_nothing_is_planned_or_copied_before_it_is_asked_for():
    packing = pack_sequences(UNEQUAL, "meta")
    assert packing.longest == 101
    assert not {"_rows", "gather", "places", "real", "bounds"} & set(vars(packing))
    assert packing.gather is packing.gather
    assert packing.gather.is_meta
    assert packing.bounds.dtype == torch.int32
    assert pack_sequences(UNEQUAL, "cpu").bounds.tolist() == [0, *UNEQUAL]


def test_gradients_of_rows_are_zero_at_padding():
    packing = pack_sequences((2, 5), "cpu")
    rows = gradients_to_rows(torch.arange(1, 6.0), packing).view(2, 3)
    assert rows.tolist() == [[3, 4, 5], [1, 2, 0]]
    equal = pack_sequences((2, 4), "cpu")
    tokens = torch.arange(4.0)
    assert gradients_to_rows(tokens, equal) is tokens
    swapped = pack_sequences((3, 40), "cpu")
    assert torch.equal(
        gradients_to_rows(torch.arange(40.0), swapped), torch.arange(40.0)[swapped.gather]
    )


def test_numbers_become_plain_ints():
    ends = pack_sequences(torch.tensor([2, 5]), "cpu").sequence_ends
    assert ends == (2, 5)
    assert all(type(end) is int for end in ends)


def test_a_pack_is_paired_with_itself_and_shares_what_it_has_prepared():
    packing = pack_sequences((2, 5), "cpu")
    assert packing.pairs.queries is packing.pairs.keys is packing


def test_sequences_of_a_pair_may_be_empty_and_nothing_is_planned_for_them():
    pairs = pair_sequences([0, 4, 9], (3, 5, 5), "cpu")
    assert (pairs.queries.lengths, pairs.keys.lengths) == ((0, 4, 5), (3, 2, 0))
    assert (pairs.queries.longest, pairs.keys.longest) == (5, 3)
    assert pairs.keys.bounds.tolist() == [0, 3, 5, 5]
    assert "_rows" not in vars(pairs.queries)
