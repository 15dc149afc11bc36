"""What tests of operations share: comparing with gradients, kernels of a device not here."""

import sys
from itertools import pairwise
from types import ModuleType

import pytest
import torch

UNLIMITED = 2**31 - 1


def run_with_gradients(run, tensors, weights=None):
    """The result of ``run(*tensors)`` and the gradient of each tensor, by fixed weights."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = run(*leaves)
    if weights is None:
        weights = torch.cos(torch.arange(out.numel(), dtype=torch.float32)).view(out.shape)
    (out.float() * weights.to(out.device)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def relative_error(found, truth):
    """How far a tensor is from the truth, as a share of its size where that is more than 1."""
    difference = found.cpu().float() - truth.float()
    return float(difference.norm() / truth.float().norm().clamp(min=1))


class FusedKernels(ModuleType):
    """The attention kernels of torch_npu in plain torch; remembers the options of each call."""

    def __init__(self):
        super().__init__("torch_npu")
        self.calls = []

    def npu_fusion_attention(self, q, k, v, head_num, layout, **options):
        self.calls.append({"head_num": head_num, "layout": layout, **options})
        outs, most, total = [], [], []
        for one_q, one_k, one_v in self._rows(q, k, v, layout, options):
            scores = self._scores(one_q, one_k, options, options.get("scale", 1.0))
            top = scores.amax(-1, keepdim=True).detach()
            sums = (scores - top).exp().sum(-1, keepdim=True)
            outs.append((scores - top).exp() / sums @ self._shared(one_v, one_q))
            most.append(top.expand(*top.shape[:-1], 8))
            total.append(sums.detach().expand(*top.shape[:-1], 8))
        join = self._join(layout)
        return join(outs).to(q.dtype), join(most), join(total), q.new_empty(0), 0, 0, 0

    def npu_fusion_attention_grad(self, q, k, v, dy, head_num, layout, **options):
        self.calls.append({"head_num": head_num, "layout": layout, **options})
        ends, grads = (0, *options["actual_seq_qlen"]), []
        for start, end in pairwise(ends):
            own_q, own_k, own_v, own_dy, most, total, out = (
                part[start:end].transpose(0, 1).float()
                for part in (
                    *(q, k, v, dy, options["softmax_max"], options["softmax_sum"]),
                    options["attention_in"],
                )
            )
            scores = self._scores(own_q, own_k, options, options["scale_value"])
            shares = (scores - most[..., :1]).exp() / total[..., :1]
            pulls = own_dy @ self._shared(own_v, own_q).transpose(1, 2)
            moves = shares * (pulls - (own_dy * out).sum(-1, keepdim=True))
            moves = moves * options["scale_value"]
            grad_k, grad_v = moves.transpose(1, 2) @ own_q, shares.transpose(1, 2) @ own_dy
            shape = (own_k.shape[0], -1, *own_k.shape[1:])
            grads.append(
                (
                    moves @ self._shared(own_k, own_q),
                    *(part.view(shape).sum(1) for part in (grad_k, grad_v)),
                )
            )
        return (
            *(
                torch.cat([one.transpose(0, 1) for one in parts]).to(q.dtype)
                for parts in zip(*grads, strict=True)
            ),
            None,
            None,
        )

    def _rows(self, q, k, v, layout, options):
        if layout == "BNSD":
            return [(q.float(), k.float(), v.float())]
        assert layout == "TND"
        ends_q, ends_k = ((0, *options[f"actual_seq_{kind}len"]) for kind in ("q", "kv"))
        bounds = zip(pairwise(ends_q), pairwise(ends_k), strict=True)
        return [
            [
                part[first:last].transpose(0, 1).float()
                for part, first, last in ((q, a, b), (k, c, d), (v, c, d))
            ]
            for (a, b), (c, d) in bounds
        ]

    def _join(self, layout):
        if layout == "BNSD":
            return lambda parts: parts[0]
        return lambda parts: torch.cat([part.transpose(0, 1) for part in parts])

    def _shared(self, part, q):
        return part.repeat_interleave(q.shape[-3] // part.shape[-3], -3)

    def _scores(self, q, k, options, scale):
        scores = q @ self._shared(k, q).transpose(-1, -2) * scale
        mask, mode = options.get("atten_mask"), options.get("sparse_mode", 0)
        if mask is None:
            return scores  # as the kernel: no mask, no limit, whatever the mode is
        if mode in (3, 4):
            assert mask.shape == (2048, 2048)
            assert torch.equal(mask, torch.ones_like(mask).triu(1))
            num_queries, num_keys = scores.shape[-2:]
            places = torch.arange(num_queries)[:, None] + num_keys - num_queries
            distance = torch.arange(num_keys)[None] - places
            after = options.get("next_tockens", UNLIMITED) if mode == 4 else 0
            before = options.get("pre_tockens", UNLIMITED) if mode == 4 else UNLIMITED
            mask = (distance > after) | (distance < -before)
        return scores.masked_fill(mask, -torch.inf)


@pytest.fixture
def npu_kernels(monkeypatch):
    """Puts the kernels where the operations look for them; they take tensors of the host."""
    kernels = FusedKernels()
    monkeypatch.setitem(sys.modules, "torch_npu", kernels)
    return kernels


@pytest.fixture
def with_gradients():
    return run_with_gradients


@pytest.fixture
def error_of():
    return relative_error
