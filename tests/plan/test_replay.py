import pytest
import torch

from mllm_npu.plan.replay import prepare

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


def test_operands_of_a_call_are_new_and_take_turns(make_operation):
    shapes = ((64,), (64,), (64,))
    found = prepare(make_operation(name="aten.add_", shapes=shapes, dtype="float32"), CPU)
    run = found.ready()
    first = [run().data_ptr() for _ in range(found.copies)]
    assert len(set(first)) == found.copies
    assert run().data_ptr() == first[0]
