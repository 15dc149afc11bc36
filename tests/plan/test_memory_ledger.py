"""The ledger follows every storage from its beginning to its end."""

import pytest
import torch

from mllm_npu.device.allocator import Blocks
from mllm_npu.plan.memory_ledger import HELD, KINDS, MemoryLedger

KIB = 1 << 10


class Phase:
    """Says what runs, as the tests set it."""

    forward = True

    def __call__(self):
        return self.forward


@pytest.fixture
def phase():
    return Phase()


@pytest.fixture
def ledger(phase):
    return MemoryLedger(blocks=Blocks(grain=1), in_forward=phase)


def tensor(kib):
    return torch.empty(kib * KIB, dtype=torch.uint8)


def test_the_peak_is_the_fullest_moment(ledger):
    first, second = tensor(4), tensor(2)
    ledger.note(first)
    ledger.note(second)
    del second
    third = tensor(1)
    ledger.note(third)
    assert ledger.peak().total == 6 * KIB
    assert ledger.now().total == 5 * KIB


def test_views_and_a_second_look_add_nothing(ledger):
    whole = tensor(4)
    for part in (whole, whole[:10], whole.view(2, -1)):
        ledger.note(part)
    assert ledger.now().total == 4 * KIB
    assert ledger.knows(whole[3:])
    assert not ledger.knows(tensor(1))


def test_what_was_there_before_is_there_from_the_beginning(ledger):
    made = tensor(3)
    ledger.note(made)
    del made
    parameter = tensor(2)
    ledger.tag([parameter, None], "parameters")
    assert ledger.peak().total == 5 * KIB
    assert ledger.peak().by_kind["parameters"] == 2 * KIB
    assert ledger.kind_of(parameter) == "parameters"
    assert ledger.kind_of(tensor(1)) is None


def test_what_a_forward_pass_leaves_for_the_backward_pass_is_an_activation(ledger, phase):
    kept, short = tensor(4), tensor(2)
    ledger.note(kept)
    ledger.note(short)
    del short
    phase.forward = False
    gradient = tensor(1)
    ledger.note(gradient)
    del kept
    peak = ledger.peak()
    assert peak.total == 6 * KIB
    assert peak.by_kind["activations"] == 4 * KIB
    assert peak.by_kind["temporary"] == 2 * KIB


def test_a_kind_that_is_known_later_holds_for_the_whole_life(ledger):
    found = tensor(2)
    ledger.note(found)
    ledger.note(found, "gradients")
    del found
    assert ledger.peak().by_kind["gradients"] == 2 * KIB


def test_storages_that_are_emptied_and_filled_again(ledger):
    gathered = tensor(8)
    ledger.tag([gathered], "unsharded")
    resize = torch.UntypedStorage.resize_
    with ledger.watching_sizes():
        gathered.untyped_storage().resize_(0)
        assert ledger.now().total == 0
        gathered.untyped_storage().resize_(8 * KIB)
        tensor(1).untyped_storage().resize_(0)  # one it does not know
    assert torch.UntypedStorage.resize_ is resize
    assert ledger.now().total == 8 * KIB
    assert ledger.peak().by_kind["unsharded"] == 8 * KIB


def test_what_lies_elsewhere_can_be_left_out(ledger):
    parameters, activations = tensor(8), tensor(1)
    ledger.tag([parameters], "parameters")
    ledger.note(activations)
    assert ledger.peak(leave_out=HELD).total == KIB
    assert ledger.now(leave_out=HELD).by_kind["parameters"] == 0
    assert set(HELD) < set(KINDS)


def test_blocks_are_rounded_as_the_allocator_rounds(phase):
    ledger = MemoryLedger(blocks=Blocks(grain=512, tail=32), in_forward=phase)
    one = torch.empty(1)
    ledger.note(one)
    assert ledger.now().total == 512


def test_the_allocator_takes_whole_segments(ledger):
    kept = tensor(4)
    ledger.note(kept)
    assert ledger.reserved() == 2 << 20
    assert ledger.reserved(leave_out=["temporary"]) == 0


def test_what_libraries_keep_is_there_all_the_time(phase):
    ledger = MemoryLedger(blocks=Blocks(grain=1, workspace=100), in_forward=phase)
    one = tensor(1)
    ledger.note(one)
    assert ledger.peak().total == KIB + 100
    del one
    assert ledger.now().total == 100
