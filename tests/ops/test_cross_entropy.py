import pytest
import torch
from torch import nn

from mllm_npu.ops import cross_entropy as module
from mllm_npu.ops.cross_entropy import cross_entropy, cross_entropy_reference

VOCAB = 11


def make_inputs(num_targets):
    head = nn.Linear(6, VOCAB)
    return torch.randn(num_targets, 6), torch.randint(0, VOCAB, (num_targets,)), head


@pytest.mark.parametrize("max_logits", [1, VOCAB, 3 * VOCAB, 1000])
def test_any_chunk_size_gives_the_reference_forwards_and_backwards(max_logits):
    hidden, targets, head = make_inputs(7)
    results = []
    for way in ("ours", "reference"):
        head.zero_grad()
        states = hidden.clone().requires_grad_()
        if way == "ours":
            total, per_target = cross_entropy(
                states, targets, head, vocab_size=VOCAB, max_logits=max_logits
            )
        else:
            per_target = cross_entropy_reference(states, targets, head)
            total = per_target.sum()
        total.backward()
        results.append((total, per_target.detach(), states.grad, head.weight.grad.clone()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_the_reference_is_minus_the_log_of_the_targets_share():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    shares = logits.exp() / logits.exp().sum()
    loss = cross_entropy_reference(logits, torch.tensor([1]), nn.Identity())
    torch.testing.assert_close(loss, -shares[:, 1].log())


def test_no_targets_give_zero_and_still_a_graph():
    hidden, targets, head = make_inputs(0)
    total, per_target = cross_entropy(
        hidden.requires_grad_(), targets, head, vocab_size=VOCAB, max_logits=5
    )
    total.backward()
    assert total.item() == 0
    assert per_target.shape == (0,)
    assert head.weight.grad.abs().sum() == 0


def test_the_single_losses_are_float32_and_detached():
    hidden, targets, head = make_inputs(3)
    total, per_target = cross_entropy(hidden.bfloat16(), targets, head.bfloat16(), vocab_size=VOCAB)
    assert total.dtype == per_target.dtype == torch.float32
    assert not per_target.requires_grad
    assert total.item() == pytest.approx(per_target.sum().item())


@pytest.mark.parametrize("widened", [1, 3 * VOCAB, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_rows_at_once_gives_the_same(monkeypatch, widened, dtype):
    monkeypatch.setattr(module, "_WIDENED", widened)
    logits = torch.randn(7, VOCAB).to(dtype)
    targets = torch.randint(0, VOCAB, (7,))
    ours, slow = (logits.clone().requires_grad_() for _ in range(2))
    total, per_target = cross_entropy(ours, targets, nn.Identity(), vocab_size=VOCAB)
    losses = cross_entropy_reference(slow, targets, nn.Identity())
    torch.testing.assert_close(per_target, losses.detach())
    (total * 0.3).backward()
    (losses.sum() * 0.3).backward()
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, slow.grad)


def test_an_accelerator_takes_more_rows_at_once():
    logits = torch.empty(4096, 2**15, device="meta")
    assert [len(part) for part in module._split(logits)[0]] == [2048, 2048]
    assert [len(part) for part in module._split(torch.empty(64, 2**15))[0]] == [32, 32]


def test_a_target_that_is_almost_impossible_has_a_finite_loss():
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    total, _ = cross_entropy(logits, torch.tensor([0]), nn.Identity(), vocab_size=2)
    total.backward()
    assert total.item() == pytest.approx(200)
    assert logits.grad.tolist() == [[-1.0, 1.0]]
