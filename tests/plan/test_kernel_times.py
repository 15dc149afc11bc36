import time

import pytest
import torch

from mllm_npu.plan import kernel_times
from mllm_npu.plan.kernel_times import kind_of, make_kinds, time_calls
from mllm_npu.plan.replay import Call

CPU = torch.device("cpu")


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def call(function, copies=1):
    return Call(
        function=function, arguments=([], {}), copies=copies, device=CPU, dtype=torch.float32
    )


def test_time_is_that_of_one_call(fixed_clock):
    slow, fast = (call(lambda s=seconds: busy(s)) for seconds in (0.002, 0.0005))
    seen = []
    found = time_calls([slow, fast], fixed_clock(), progress=lambda *done: seen.append(done))
    threads = torch.get_num_threads()
    assert [seconds * threads for seconds in found] == pytest.approx([0.002, 0.0005], rel=0.3)
    assert seen[-1] == (10, 10)


def test_a_pass_that_is_disturbed_changes_no_median(fixed_clock, monkeypatch):
    samples = iter([1.0, 1.0, 50.0, 1.0, 1.0])
    monkeypatch.setattr(kernel_times, "_count", lambda *_: 1)
    calls = []

    def sample(run, clock, count):
        calls.append(count)
        return next(samples) if len(calls) % 2 == 0 else 99.0

    monkeypatch.setattr(kernel_times, "_sample", sample)
    assert time_calls([call(lambda: None)], fixed_clock()) == [1.0]


def test_kinds_are_made_once_and_what_cannot_be_is_left_out(make_operation, fixed_clock):
    square = ((16, 16),) * 3
    one = make_operation(name="aten.mm", shapes=square, dtype="float32")
    again = make_operation(name="aten.mm", shapes=square, dtype="float32", phase="backward")
    strange = make_operation(name="aten.unheard_of", shapes=square)
    found = make_kinds([one, again, strange], fixed_clock(), moment=1e-4)
    assert set(found) == {kind_of(one)}
    assert make_kinds([], fixed_clock()) == {}


def test_a_larger_product_takes_longer(make_operation, fixed_clock):
    products = [
        make_operation(name="aten.mm", shapes=((n, n),) * 3, dtype="float32") for n in (64, 512)
    ]
    found = make_kinds(products, fixed_clock())
    assert found[kind_of(products[1])] > 20 * found[kind_of(products[0])]
