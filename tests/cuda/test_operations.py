"""Operations on the device: every way against its reference, and kernels at the sizes of models."""

import pytest
import torch

from mllm_npu.ops.attention_options import BandOptions, PackOptions, ScoreOptions
from mllm_npu.ops.block_attention import pack_blocks
from mllm_npu.ops.packing import pack_sequences, pair_sequences
from mllm_npu.ops.varlen_attention import varlen_attention
from mllm_npu.ops.ways import OPS

LENGTHS = (1, 700, 64, 333, 129, 1, 17)
BLOCKS = ((1, 65), (100, 164), (701, 702), (765, 900), (1228, 1230))
SCALE = 0.125


def test_every_way_of_every_operation_equals_its_reference(command, device):
    told = command(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--no-header"),
        *("-W", "ignore:Synchronization debug mode", "tests/ops/test_every_way.py"),
    )
    assert " passed" in told


def ends_of(lengths):
    return tuple(torch.tensor(lengths).cumsum(0).tolist())


def compare(name, device, shapes, call):
    """Each way of the device on bfloat16, forward and backward, against float32 on the CPU."""
    tensors = [torch.randn(shape).bfloat16() for shape in shapes]
    pull = torch.randn(shapes[0]).bfloat16()

    def run(way, device, dtype):
        leaves = [one.to(device, dtype).requires_grad_() for one in tensors]
        out = call(way, *leaves)
        out.backward(pull.to(device, dtype))
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    truth = run(OPS[name].reference, "cpu", torch.float32)
    tried = []
    here = [one.to(device) for one in tensors]
    for way in OPS[name].ways:
        if way.device not in (None, device) or (way.suits and not call(way.suits, *here)):
            continue
        tried.append(way.name)
        for found, wanted in zip(run(way.run, device, torch.bfloat16), truth, strict=True):
            error = (found.cpu().float() - wanted).norm() / wanted.norm().clamp(min=1)
            assert error < 0.02, (way.name, error)
    return tried


def assert_a_kernel_is_first(device, tried):
    assert device == "cpu" or tried[0].startswith("flash"), tried


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("heads", [(8, 2), (4, 4)], ids=str)
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("lengths", [LENGTHS, (1,) * 9], ids=["unequal", "of one token"])
def test_packs_of_a_models_size(device, lengths, width, heads, window):
    ends = ends_of(lengths)

    def call(run, q, k, v):
        packing = pack_sequences(ends, q.device)
        return run(q, k, v, packing, PackOptions(scale=SCALE, window=window))

    shapes = [(ends[-1], number, width) for number in (heads[0], heads[1], heads[1])]
    assert_a_kernel_is_first(device, compare("packed_attention", device, shapes, call))


@pytest.mark.parametrize("blocks", [BLOCKS, ((3, 5), (70, 72))], ids=["unequal", "of two tokens"])
@pytest.mark.parametrize("heads", [(8, 2), (4, 4)], ids=str)
def test_packs_with_pictures_that_see_all_of_themselves(device, heads, blocks):
    ends = ends_of(LENGTHS)

    def call(run, q, k, v):
        layout = pack_blocks(pack_sequences(ends, q.device), blocks)
        return run(q, k, v, layout, ScoreOptions(scale=SCALE))

    shapes = [(ends[-1], number, 64) for number in (heads[0], heads[1], heads[1])]
    assert_a_kernel_is_first(device, compare("block_attention", device, shapes, call))


def test_pairs_of_sequences(device):
    ends_q, ends_k = ends_of((40, 1, 200)), ends_of((300, 64, 200))

    def call(run, q, k, v):
        packing = pair_sequences(ends_q, ends_k, q.device)
        return run(q, k, v, packing, BandOptions(left=None, right=None, scale=SCALE))

    shapes = [(ends_q[-1], 8, 64), (ends_k[-1], 2, 64), (ends_k[-1], 2, 64)]
    assert compare(varlen_attention.__name__, device, shapes, call)


def test_a_large_vocabulary_is_scored_in_few_pieces(device):
    targets = torch.arange(300) * 7

    def call(run, hidden, head):
        found = run(
            hidden,
            targets.to(hidden.device),
            lambda some: some @ head.t(),
            vocab_size=len(head),
            max_logits=2**27,
        )
        return found[0]

    tensors = [torch.randn(300, 32).bfloat16(), torch.randn(32000, 32).bfloat16() / 8]
    found = []
    for where, dtype in (("cpu", torch.float32), (device, torch.bfloat16)):
        leaves = [one.to(where, dtype).requires_grad_() for one in tensors]
        loss = call(OPS["cross_entropy"], *leaves)
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        assert (other.cpu().float() - one).norm() / one.norm() < 0.02
