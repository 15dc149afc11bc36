import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mllm_npu.ops.ways import (
    OPS,
    REFERENCE,
    Op,
    Way,
    calls,
    device_of,
    keep_while_pretending,
    kept_tensors,
    only_reference,
    pretend,
    pretends,
)


@pytest.fixture
def double():
    """An operation with a way for small tensors, one for the CPU, one that another device has."""
    op = Op(
        "double",
        reference=lambda x, *, note="": "reference",
        ways=(
            Way(name="elsewhere", device="cuda", run=lambda x, *, note="": "elsewhere"),
            Way(
                name="small",
                run=lambda x, *, note="": "small",
                suits=lambda x, *, note="": x.numel() < 3 and note != "general",
            ),
            Way(name="host", device="cpu", run=lambda x, *, note="": "host"),
            Way(name="general", run=lambda x, *, note="": "general"),
        ),
    )
    yield op
    del OPS["double"]


def test_the_first_way_that_suits_on_the_device_is_taken(double):
    assert double(torch.zeros(2)) == "small"
    assert double(torch.zeros(2), note="general") == "host"
    assert double(torch.zeros(3)) == "host"
    assert double(torch.zeros(3, device="meta")) == "general"
    assert double.pick(torch.zeros(2, device="meta")).name == "small"
    assert OPS["double"] is double


def test_tensors_without_memory_take_no_way_of_an_accelerator(double):
    with FakeTensorMode():
        pretended = torch.zeros(3, device="cuda")
        assert pretended.device.type == "cuda"
        assert device_of(pretended) == ""
        assert double(pretended) == "general"
        assert double(torch.zeros(3)) == "host"


def test_the_device_of_what_is_a_tensor():
    assert device_of(torch.zeros(1)) == "cpu"
    assert device_of(nn.Parameter(torch.zeros(1))) == "cpu"
    assert device_of(torch.zeros(1, device="meta")) == "meta"
    assert device_of("tensor") == ""


def test_the_reference_alone_is_used_where_it_is_asked_for(double):
    with only_reference():
        assert double(torch.zeros(2)) == "reference"
        with only_reference():
            pass
        assert double(torch.zeros(2)) == "reference"
    assert double(torch.zeros(2)) == "small"


def test_the_setting_ends_with_an_error(double):
    with pytest.raises(ValueError, match="inside"), only_reference():
        raise ValueError("inside")
    assert double(torch.zeros(2)) == "small"


def test_threads_follow_the_setting_because_a_backward_pass_is_one(double):
    found = []
    with only_reference():
        thread = threading.Thread(target=lambda: found.append(double(torch.zeros(2))))
        thread.start()
        thread.join()
    assert found == ["reference"]


def test_calls_are_counted_by_operation_and_way(double):
    before = calls()
    double(torch.zeros(1))
    double(torch.zeros(1))
    double(torch.zeros(9))
    with only_reference():
        double(torch.zeros(9))
    found = calls() - before
    assert found == {("double", "small"): 2, ("double", "host"): 1, ("double", REFERENCE): 1}


def test_what_was_counted_does_not_change_afterwards(double):
    before = calls()
    double(torch.zeros(1))
    assert before["double", "small"] == calls()["double", "small"] - 1


def test_a_device_that_is_pretended_computes_with_fake_tensors(double):
    with FakeTensorMode():
        fake = torch.empty(5)
    with pretend("cuda"):
        assert pretends("cuda")
        assert double(fake) == "elsewhere"
        assert double(torch.ones(5)) == "host"
    assert not pretends("cuda")
    assert double(fake) == "host"


def test_what_is_kept_while_pretending_ends_with_it():
    with pretend("cuda"):
        mask = keep_while_pretending("mask", lambda: torch.ones(2))
        assert keep_while_pretending("mask", lambda: torch.ones(3)) is mask
        assert kept_tensors() == [mask]
    assert kept_tensors() == []
