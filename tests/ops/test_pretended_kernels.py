"""Stand-ins give the shapes of the real kernels, and keep for the backward pass what those keep."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.ops import pretended_kernels
from mllm_npu.ops.attention import attend, packed_attention
from mllm_npu.ops.block_attention import block_attention, pack_blocks
from mllm_npu.ops.cross_entropy import cross_entropy
from mllm_npu.ops.gelu import gelu
from mllm_npu.ops.packing import pack_sequences
from mllm_npu.ops.rms_norm import rms_norm
from mllm_npu.ops.rotary import rotate
from mllm_npu.ops.swiglu import swiglu
from mllm_npu.ops.ways import calls, pretend

BFLOAT16 = torch.bfloat16


def empty(*shape, dtype=BFLOAT16):
    return torch.empty(shape, dtype=dtype, requires_grad=dtype.is_floating_point)


def kept_by(make):
    """Shapes and dtypes of what a result keeps, its inputs apart."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = make()
    return out, [(tuple(t.shape), t.dtype) for t in kept]


@pytest.fixture(params=["npu", "cuda"])
def device(request):
    with FakeTensorMode(), pretend(request.param):
        yield request.param


def test_attention_keeps_its_result_and_statistics(device):
    q, k = empty(30, 4, 16), empty(30, 2, 16)
    packing = pack_sequences((10, 30), "cpu")
    before = calls()
    out, kept = kept_by(lambda: packed_attention(q, k, k, packing, scale=1.0))
    way = "npu" if device == "npu" else "flash library"
    assert (calls() - before)["packed_attention", way] == 1
    assert (out.shape, out.dtype) == ((30, 4, 16), BFLOAT16)
    statistics = [shape for shape, dtype in kept if dtype is torch.float32 and 0 not in shape]
    assert statistics == ([(30, 4, 8)] * 2 if device == "npu" else [(30, 4, 1)])
    out.sum().backward()
    assert (q.grad.shape, k.grad.shape) == (q.shape, k.shape)


def test_dense_attention_and_attention_in_blocks(device):
    q = empty(2, 4, 10, 16)
    assert attend(q, q, q, mask=None, causal=True, scale=1.0).shape == q.shape
    tokens = empty(20, 4, 16)
    layout = pack_blocks(pack_sequences((20,), "cpu"), [(3, 9)])
    out = block_attention(tokens, tokens, tokens, layout, scale=1.0)
    out.sum().backward()
    assert tokens.grad.shape == tokens.shape


def test_small_operations_and_their_gradients(device):
    x, weight = empty(6, 16), empty(16)
    gate = swiglu(gelu(rms_norm(x, weight, 1e-6)), x)
    heads = empty(1, 4, 6, 16)
    with torch.no_grad():
        angles = empty(1, 6, 16)
    turned = rotate(heads, angles.detach(), angles.detach())
    (gate.sum() + turned.sum()).backward()
    assert [t.grad.shape for t in (x, weight, heads)] == [t.shape for t in (x, weight, heads)]


def test_a_norm_keeps_one_factor_of_each_row(device):
    x, weight = empty(6, 16), empty(16)
    _, kept = kept_by(lambda: rms_norm(x, weight, 1e-6))
    assert ((6, 1), torch.float32) in kept
    assert len(kept) == 3


@pytest.mark.parametrize(("name", "pieces"), [("npu", 1), ("cpu", 4)])
def test_an_accelerator_widens_larger_pieces_of_logits(name, pieces):
    widened = []

    class Widened(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._log_softmax.default:
                widened.append(args[0].shape)
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), pretend(name), Widened():
        hidden, head = empty(8192, 8), empty(512, 8)
        targets = empty(8192, dtype=torch.int64)
        cross_entropy(hidden, targets, lambda rows: rows @ head.t(), vocab_size=512)
    assert len(widened) == pieces


@pytest.mark.parametrize(
    ("queries", "keys", "left", "right", "pairs"),
    [
        ([4], [4], 9, 9, 16),
        ([4], [4], 9, 0, 10),
        ([2, 3], [2, 3], 9, 0, 3 + 6),
        ([2], [4], 9, 0, 3 + 4),
        ([4], [4], 1, 0, 1 + 2 + 2 + 2),
        ([3], [3], 0, 1, 2 + 2 + 1),
    ],
)
def test_pairs_that_see_each_other(queries, keys, left, right, pairs):
    assert pretended_kernels._count_pairs(queries, keys, left, right) == pairs


def test_flops_of_attention():
    assert pretended_kernels.attention_flops((10, 4, 16), (10, 4, 8), 5) == 2 * 5 * 4 * 24
    assert pretended_kernels.attention_flops((2, 4, 10, 16), (2, 4, 10, 16), 5) == 2 * 5 * 4 * 32


def test_the_kernel_of_the_npu_counts_by_its_own_words():
    with FakeTensorMode():
        q = torch.empty(1, 2, 4, 8)
        out, most, total, *_ = pretended_kernels.npu_fusion_attention(q, q, q, 2, "BNSD")
        assert (out.shape, most.shape, total.shape) == (q.shape, (1, 2, 4, 8), (1, 2, 4, 8))
