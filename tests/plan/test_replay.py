import time

import pytest
import torch

from mllm_npu.plan import replay
from mllm_npu.plan.replay import Call, kind_of, make_kinds, prepare, time_calls

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("aten.mm", ((32, 16), (16, 8), (32, 8))),
        ("aten.mm.default", ((32, 16), (16, 8), (32, 8))),
        ("aten.addmm", ((8,), (32, 16), (16, 8), (32, 8))),
        ("aten.bmm", ((4, 8, 16), (4, 16, 8), (4, 8, 8))),
        ("aten.baddbmm", ((4, 8, 8), (4, 8, 16), (4, 16, 8), (4, 8, 8))),
        ("aten.add", ((64,), (64,), (64,))),
        ("aten.mul", ((64,), (64,))),
        ("aten.sum", ((8, 16), (8,))),
        ("aten.mean.dim", ((8, 16), (8, 1))),
        ("aten.cat", ((4, 8), (4, 8), (4, 16))),
        ("aten.silu", ((8, 16), (8, 16))),
        ("aten._softmax", ((8, 16), (8, 16))),
        ("aten.native_layer_norm", ((8, 16), (16,), (16,), (8, 16), (8, 1), (8, 1))),
        ("aten.slice_backward", ((8, 4), (8, 16))),
        ("aten.index_select", ((100, 16), (7,), (7, 16))),
        ("aten.embedding_dense_backward", ((7, 16), (7,), (100, 16))),
        ("aten._foreach_norm", ((4, 4), (8,), (), ())),
        ("aten._fused_adamw_", (((4, 4),) * 4 + ((),))),
    ],
)
def test_operations_are_called_from_what_is_recorded(make_operation, name, shapes):
    call = prepare(make_operation(name=name, shapes=shapes, dtype="float32"), CPU)
    assert call is not None
    call.ready()()


def test_a_result_has_the_recorded_shape_and_dtype(make_operation):
    shapes = ((8, 16), (16, 4), (8, 4))
    for dtype in ("float32", "bfloat16"):
        result = prepare(make_operation(name="aten.mm", shapes=shapes, dtype=dtype), CPU).ready()()
        assert result.shape == (8, 4)
        assert result.dtype is getattr(torch, dtype)


@pytest.mark.parametrize(
    ("name", "shapes", "dtype"),
    [
        ("aten.no_such_thing", ((4,), (4,)), "float32"),
        ("nowhere.mm", ((4, 4), (4, 4), (4, 4)), "float32"),
        ("aten.mm", (), "float32"),
        ("aten.mm", ((4, 4), (5, 4), (4, 4)), "float32"),
        ("aten.index", ((4,), (4,)), "uint8"),
    ],
)
def test_what_cannot_be_called_gives_none(make_operation, name, shapes, dtype):
    assert prepare(make_operation(name=name, shapes=shapes, dtype=dtype), CPU) is None


def test_small_operands_take_turns(make_operation):
    shapes = ((64,), (64,), (64,))
    call = prepare(make_operation(name="aten.add", shapes=shapes, dtype="float32"), CPU)
    assert call.copies > 1
    large = ((4 << 20,),) * 3
    assert prepare(make_operation(name="aten.add", shapes=large, dtype="float32"), CPU).copies == 1


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
    monkeypatch.setattr(replay, "_count", lambda *_: 1)
    calls = []

    def sample(run, clock, count):
        calls.append(count)
        return next(samples) if len(calls) % 2 == 0 else 99.0

    monkeypatch.setattr(replay, "_sample", sample)
    assert time_calls([call(lambda: None)], fixed_clock()) == [1.0]


def test_operands_of_a_call_are_new_and_take_turns(make_operation):
    shapes = ((64,), (64,), (64,))
    found = prepare(make_operation(name="aten.add_", shapes=shapes, dtype="float32"), CPU)
    run = found.ready()
    first = [run().data_ptr() for _ in range(found.copies)]
    assert len(set(first)) == found.copies
    assert run().data_ptr() == first[0]


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
