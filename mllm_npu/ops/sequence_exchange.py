"""Exchange tokens for attention heads between the ranks that share the sequences of a pack.

Each rank holds a stretch of the tokens; inside attention it holds some heads of all tokens. The
ranks see the same pack, and the loss is divided by what all of them count, so gradients of what
each rank computes in full add up to the right sum.

Shape letters: T tokens of the pack, t tokens of a rank (padded to the same number on each), H heads
of the model, h heads of a rank, E head width, D width.

Source: DeepSpeed-Ulysses (Jacobs et al. 2023).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.errors import ConfigError


class SequenceExchange:
    """The ranks that share a pack.

    Args:
        group: of these ranks, in the order of their stretches.
    """

    def __init__(self, *, group: dist.ProcessGroup) -> None:
        self.group = group
        self.size = group.size()
        self.rank = group.rank()

    def split(self, tokens_TX: Tensor) -> Tensor:
        """This rank's stretch of what all of them hold, [T, ...] -> [t, ...], padded with zeros."""
        length = -(-tokens_TX.shape[0] // self.size)
        own = tokens_TX[self.rank * length : (self.rank + 1) * length]
        missing = length - own.shape[0]
        return F.pad(own, (*(0, 0) * (own.dim() - 1), 0, missing)) if missing else own

    def join(self, own_tD: Tensor, num_tokens: int) -> Tensor:
        """All stretches on every rank, [t, D] -> [T, D]; gradients of all ranks are summed."""
        return _Join.apply(own_tD, self)[:num_tokens]  # type: ignore[no-untyped-call]

    def to_heads(self, own_tHE: Tensor, num_tokens: int, *, shared: bool = False) -> Tensor:
        """All tokens of this rank's heads, [t, H, E] -> [T, h, E].

        Args:
            own_tHE: this rank's tokens of all heads.
            num_tokens: T.
            shared: whether several query heads read each of these, as keys and values may be.

        Raises:
            ConfigError: the heads cannot be shared out.
        """
        heads = own_tHE.shape[1]
        if shared and heads < self.size and self.size % heads == 0:
            # Fewer key heads than ranks: some ranks work with the same one.
            own_tHE = own_tHE.repeat_interleave(self.size // heads, 1)
        elif heads % self.size:
            raise ConfigError(
                f"parallel.sequence_size={self.size} was asked for, and an attention layer has "
                f"{heads} heads. Choose a number that divides it."
            )
        return _ToHeads.apply(own_tHE, self)[:num_tokens]  # type: ignore[no-untyped-call]

    def to_tokens(self, heads_ThE: Tensor) -> Tensor:
        """This rank's tokens of all heads, [T, h, E] -> [t, H, E]."""
        missing = -heads_ThE.shape[0] % self.size
        padded = F.pad(heads_ThE, (0, 0, 0, 0, 0, missing)) if missing else heads_ThE
        return _ToTokens.apply(padded, self)  # type: ignore[no-untyped-call]

    def _heads_of(self, own_tHE: Tensor) -> Tensor:
        tokens, heads, width = own_tHE.shape
        sent = own_tHE.view(tokens, self.size, heads // self.size, width).transpose(0, 1)
        sent = sent.contiguous()
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        return received.flatten(0, 1)

    def _tokens_of(self, heads_ThE: Tensor) -> Tensor:
        sent = heads_ThE.contiguous().view(self.size, -1, *heads_ThE.shape[1:])
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        return received.transpose(0, 1).flatten(1, 2)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_tHE: Tensor, exchange: SequenceExchange) -> Tensor:
        ctx.exchange = exchange
        return exchange._heads_of(own_tHE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange._tokens_of(grad), None


class _ToTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads_ThE: Tensor, exchange: SequenceExchange) -> Tensor:
        ctx.exchange = exchange
        return exchange._tokens_of(heads_ThE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange._heads_of(grad.contiguous()), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_tD: Tensor, exchange: SequenceExchange) -> Tensor:
        ctx.exchange = exchange
        own = own_tD.contiguous()
        joined = own.new_empty(exchange.size * own.shape[0], *own.shape[1:])
        dist.all_gather(list(joined.chunk(exchange.size)), own, group=exchange.group)
        return joined

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        exchange: SequenceExchange = ctx.exchange
        own = grad.new_empty(grad.shape[0] // exchange.size, *grad.shape[1:])
        stretches = list(grad.contiguous().chunk(exchange.size))
        dist.reduce_scatter(own, stretches, group=exchange.group)
        return own, None
