"""Every way of every operation on the devices of this process, against the reference."""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from mllm_npu import ops
from mllm_npu.device.platform import available_platforms
from mllm_npu.device.transfer import to_device
from mllm_npu.ops.attention_options import BandOptions, PackOptions, RowOptions, ScoreOptions
from mllm_npu.ops.block_attention import pack_blocks
from mllm_npu.ops.packing import pack_sequences, pair_sequences
from mllm_npu.ops.ways import OPS, calls

for module in pkgutil.iter_modules(ops.__path__):  # an operation is known once that is imported
    importlib.import_module(f"{ops.__name__}.{module.name}")

DEVICES = [platform.name for platform in available_platforms()]
DTYPES = [torch.float32, torch.bfloat16]
ENDS = (5, 6, 46, 58)
EQUAL = (8, 16, 24)
BLOCKS = ((1, 4), (5, 6), (10, 40), (46, 58))
SCALE = 0.3


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arguments of an operation.

    Args:
        op: its name.
        name: of the arguments.
        shapes: of the tensors that get gradients.
        call: gives them, and what else belongs to them, to a way or to its rule.
    """

    op: str
    name: str
    shapes: tuple[tuple[int, ...], ...]
    call: Callable


def packed(name, *, ends=ENDS, heads=(4, 2), widths=(8, 8), **options):
    def call(run, q, k, v):
        packing = pack_sequences(ends, q.device)
        return run(q, k, v, packing, PackOptions(scale=SCALE, **options))

    shapes = ((heads[0], widths[0]), (heads[1], widths[0]), (heads[1], widths[1]))
    shapes = tuple((ends[-1], *shape) for shape in shapes)
    return Case(op="packed_attention", name=name, shapes=shapes, call=call)


def dense(name, *, queries=6, keys=6, mask=None, causal=False, **options):
    def call(run, q, k, v):
        seen = None if mask is None else to_device(make_mask(*mask), q.device)
        return run(q, k, v, RowOptions(mask=seen, causal=causal, scale=SCALE, **options))

    shapes = ((3, 4, queries, 8), (3, 2, keys, 8), (3, 2, keys, 8))
    return Case(op="attend", name=name, shapes=shapes, call=call)


def make_mask(*shape):
    """Hides about half, and never the first key."""
    mask = torch.cos(3 * torch.arange(torch.Size(shape).numel())).view(shape) > 0
    mask[..., 0] = True
    return mask


def blocks(name, blocks=BLOCKS, heads=(4, 2)):
    def call(run, q, k, v):
        layout = pack_blocks(pack_sequences(ENDS, q.device), blocks)
        return run(q, k, v, layout, ScoreOptions(scale=SCALE))

    shapes = tuple((ENDS[-1], number, 8) for number in (*heads, heads[1]))
    return Case(op="block_attention", name=name, shapes=shapes, call=call)


def varlen(name, ends_q, ends_k, left=None, right=None):
    def call(run, q, k, v):
        packing = pair_sequences(ends_q, ends_k, q.device)
        return run(q, k, v, packing, BandOptions(left=left, right=right, scale=SCALE))

    shapes = ((ends_q[-1], 4, 8), (ends_k[-1], 2, 8), (ends_k[-1], 2, 8))
    return Case(op="varlen_attention", name=name, shapes=shapes, call=call)


def rotation(name, x, cos, heads_dim=1):
    def call(run, x):
        angles = to_device(torch.linspace(0, 9, torch.Size(cos).numel()).view(cos), x.device)
        return run(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype), heads_dim=heads_dim)

    return Case(op="rotate", name=name, shapes=(x,), call=call)


def losses(name, max_logits):
    def call(run, hidden, head):
        targets = to_device(torch.arange(len(hidden)) % 11, hidden.device)
        found = run(
            hidden, targets, lambda some: F.linear(some, head), vocab_size=11, max_logits=max_logits
        )
        return found[0] if isinstance(found, tuple) else found

    return Case(op="cross_entropy", name=name, shapes=((7, 6), (11, 6)), call=call)


def simple(op, name, *shapes, others=()):
    return Case(op=op, name=name, shapes=shapes, call=lambda run, *parts: run(*parts, *others))


CASES = [
    packed("plain"),
    packed("one head per key", heads=(2, 2)),
    packed("equal lengths", ends=EQUAL),
    packed("one sequence longer than a block", ends=(200,)),
    packed("window", window=4),
    packed("window of one token", window=1),
    packed("window wider than all", window=100),
    packed("softcap", softcap=2.0),
    packed("softcap and window", softcap=2.0, window=3),
    packed("narrow values", widths=(8, 4)),
    dense("causal", causal=True),
    dense("full", queries=3),
    dense("one new token", queries=1),
    dense("mask of rows", queries=3, mask=(3, 1, 3, 6)),
    dense("mask of all rows", mask=(6, 6)),
    dense("mask of heads", mask=(1, 4, 6, 6)),
    dense("mask of keys", mask=(3, 1, 1, 6)),
    dense("softcap", softcap=2.0, causal=True),
    dense("softcap and mask", softcap=2.0, mask=(6, 6)),
    blocks("several"),
    blocks("one head per key", heads=(2, 2)),
    blocks("none", blocks=()),
    blocks("of one token", blocks=((3, 4),)),
    blocks("whole sequences", blocks=((0, 5), (5, 6), (6, 46), (46, 58))),
    varlen("full", ENDS, (7, 8, 20, 60)),
    varlen("equal lengths", EQUAL, EQUAL),
    varlen("causal", ENDS, ENDS, right=0),
    varlen("causal with a past", ENDS, (7, 9, 60, 80), right=0),
    varlen("causal with less keys", ENDS, (3, 4, 24, 60), right=0),
    varlen("band", ENDS, (7, 9, 60, 80), left=3, right=2),
    varlen("nothing behind", ENDS, ENDS, left=3, right=0),
    varlen("nothing before", ENDS, ENDS, left=0),
    varlen("empty sequences", (0, 4, 4, 9), (3, 5, 5, 5), right=1),
    simple("rms_norm", "rows", (3, 5, 8), (8,), others=(1e-5,)),
    simple("swiglu", "rows", (3, 5, 8), (3, 5, 8)),
    simple("gelu", "rows", (3, 5, 8)),
    simple("patch_embedding", "with a rest", (2, 3, 9, 14), (5, 3, 4, 4), (5,)),
    simple("patch_embedding", "without bias", (2, 3, 8, 8), (5, 3, 4, 4)),
    rotation("all of the width", (2, 3, 5, 8), (2, 5, 8)),
    rotation("the same for all rows", (2, 3, 5, 8), (1, 5, 8)),
    rotation("a part of the width", (2, 3, 5, 8), (2, 5, 6)),
    rotation("heads behind tokens", (2, 5, 3, 8), (2, 5, 8), heads_dim=2),
    losses("at once", 1000),
    losses("in chunks", 33),
]


def make_tensors(case, dtype):
    return [torch.randn(shape).to(dtype) for shape in case.shapes]


def ways_of(case, device, tensors):
    """Ways of the operation that run on the device and learn from these tensors."""
    op, here = OPS[case.op], [tensor.detach().to(device).requires_grad_() for tensor in tensors]
    return [
        way
        for way in op.ways
        if way.device in (None, device) and (way.suits is None or case.call(way.suits, *here))
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.name}")
def test_every_way_is_the_reference(case, device, dtype, with_gradients, error_of):
    tensors = make_tensors(case, dtype)
    reference, limit = OPS[case.op].reference, 1e-5 if dtype == torch.float32 else 0.02
    truth = with_gradients(
        lambda *parts: case.call(reference, *parts), [one.float() for one in tensors]
    )
    runs = {way.name: way.run for way in ways_of(case, device, tensors)} | {"truth": reference}
    for name, run in runs.items():
        found = with_gradients(
            lambda *parts, run=run: case.call(run, *parts), [one.to(device) for one in tensors]
        )
        errors = [error_of(one, other) for one, other in zip(found, truth, strict=True)]
        assert found[0].device.type == device
        assert max(errors) < limit, (name, errors)
        assert all(torch.isfinite(one).all() for one in found)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", sorted(OPS))
def test_every_way_of_the_device_has_a_case(op, device):
    taken = {
        way.name
        for case in CASES
        if case.op == op
        for dtype in DTYPES
        for way in ways_of(case, device, make_tensors(case, dtype))
    }
    optional = {"flash library", "flash torch"}  # where the kernels are installed
    assert {way.name for way in OPS[op].ways if way.device in (None, device)} - optional <= taken


@contextmanager
def refusing_to_wait(device):
    """An error wherever the host would wait for the device."""
    module = torch.get_device_module(device)
    module.set_sync_debug_mode("error")
    try:
        yield
    finally:
        module.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.name}")
def test_the_way_that_is_picked_is_counted_and_never_waits(case, device):
    leaves = [one.to(device).requires_grad_() for one in make_tensors(case, torch.bfloat16)]
    expected = ways_of(case, device, leaves)[0].name
    before = calls()
    with nullcontext() if device == "cpu" else refusing_to_wait(device):
        out = case.call(OPS[case.op], *leaves)
        out.sum().backward()
    assert (calls() - before)[case.op, expected] == 1
    assert all(leaf.grad is not None for leaf in leaves)


DROPPING = [
    packed("dropout", ends=(150, 200), dropout=0.5),
    packed("dropout in a window", ends=(150, 200), dropout=0.5, window=60),
    dense("dropout", queries=60, keys=60, causal=True, dropout=0.5),
    dense("dropout of all", queries=60, keys=60, dropout=0.5),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", DROPPING, ids=lambda case: f"{case.op}-{case.name}")
def test_what_is_dropped_is_made_up_for_by_what_is_kept(case, device):
    """Of values that are all one, the mean stays one and the results differ."""
    q, k, v = (one.to(device) for one in make_tensors(case, torch.float32))
    for way in ways_of(case, device, (q, k, v)):
        out = case.call(way.run, q, k, torch.ones_like(v)).cpu()
        assert out.mean().item() == pytest.approx(1, abs=0.1), way.name
        assert out.std() > 0.05, way.name


ATTENTION = [case for case in CASES if "atten" in case.op]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", ATTENTION, ids=lambda case: f"{case.op}-{case.name}")
def test_under_autocast_attention_is_narrow_and_its_gradients_wide(case, device, error_of):
    tensors = make_tensors(case, torch.float32)
    truth = case.call(OPS[case.op].reference, *tensors)
    leaves = [one.to(device).requires_grad_() for one in tensors]
    with torch.autocast(device, torch.bfloat16):
        out = case.call(OPS[case.op], *leaves)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert error_of(out.detach(), truth) < 0.02
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)
