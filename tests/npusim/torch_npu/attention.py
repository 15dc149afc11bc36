"""Fused attention in float32, block by block of queries; no matrix of the size of a pack exists.

The backward pass uses the softmax statistics and the output it is given, as the real kernel does,
so partial attentions that were merged by their statistics have the gradient of the whole.

Shape letters: B batch, N query heads, J key heads, Q queries, K keys, E head width, H pairs of
batch and key head, G query heads per key head, R queries of a block, C keys a block can see.
"""

import functools
import math
from dataclasses import dataclass

import torch

LOWEST = torch.finfo(torch.float32).min
HIGHEST = torch.finfo(torch.float32).max
_BLOCK_NUMBERS = 1 << 20
"""Scores of a block: small enough for a cache, large enough that calls do not count."""
_MIXER = 0x9E3779B97F4A7C15


def rows_of(tensor, layout, heads):
    """A tensor of another layout than TND as view [B, N, S, E]."""
    if layout in ("BSH", "SBH"):
        rows = tensor if layout == "BSH" else tensor.transpose(0, 1)
        return rows.unflatten(-1, (heads, -1)).transpose(1, 2)
    return tensor if layout == "BNSD" else tensor.transpose(1, 2)


@dataclass(slots=True)
class Rows:
    """Sequences of equal lengths, which are computed together.

    Args:
        queries: token of each query in the pack, int64 [B, Q]; None where the layout has rows.
        keys: the same of the keys, int64 [B, K].
    """

    queries: torch.Tensor | None = None
    keys: torch.Tensor | None = None

    def take(self, call, tensor, *, of_keys=False):
        """These rows of a tensor, [B, N, S, X]."""
        tokens = self.keys if of_keys else self.queries
        if tokens is None:
            return rows_of(tensor, call.layout, call.key_heads if of_keys else call.head_num)
        taken = tensor.index_select(0, tokens.flatten())
        return taken.view(*tokens.shape, *tensor.shape[1:]).transpose(1, 2)

    def put(self, call, tensor, values_BNSX, *, of_keys=False):
        """Write these rows of a tensor."""
        tokens = self.keys if of_keys else self.queries
        if tokens is None:
            heads = call.key_heads if of_keys else call.head_num
            rows_of(tensor, call.layout, heads).copy_(values_BNSX)
        else:
            values = values_BNSX.transpose(1, 2).flatten(0, 1).to(tensor.dtype)
            tensor.index_copy_(0, tokens.flatten(), values)


def groups_of(call):
    """All rows of a call; the sequences of a pack by their lengths."""
    if call.layout != "TND":
        return [Rows()]
    return _groups(tuple(call.query_ends), tuple(call.key_ends))


@functools.lru_cache(maxsize=64)
def _groups(query_ends, key_ends):
    starts = {}
    for q, q_end, k, k_end in zip(
        (0, *query_ends), query_ends, (0, *key_ends), key_ends, strict=False
    ):
        starts.setdefault((q_end - q, k_end - k), []).append((q, k))
    return [
        Rows(
            *(
                torch.tensor(first)[:, None] + torch.arange(n)
                for first, n in zip(zip(*begins, strict=True), lengths, strict=True)
            )
        )
        for lengths, begins in starts.items()
        if lengths[0]
    ]


def output_like(query, value, call):
    """Empty, as the query with the value's head width."""
    width = value.shape[-1]
    if call.layout in ("BSH", "SBH"):
        width = width // call.key_heads * call.head_num
    return query.new_empty((*query.shape[:-1], width))


def statistics_like(tensor, call):
    """Empty [B, N, S, 8], or [T, N, 8] for TND, in float32."""
    if call.layout == "TND":
        shape = tensor.shape[:2]
    else:
        batch, length = {"BSH": (0, 1), "SBH": (1, 0), "BNSD": (0, 2), "BSND": (0, 1)}[call.layout]
        shape = (tensor.shape[batch], call.head_num, tensor.shape[length])
    return tensor.new_empty((*shape, 8), dtype=torch.float32)


@dataclass(slots=True)
class Block:
    """Some queries of a sequence, and the keys the band around them lets them see.

    Args:
        queries: slice of the queries.
        keys: slice of the keys.
        hidden: bool, True where a key is not seen, broadcasts to [B, N, R, C]; None for nowhere.
        shape: B, J, G, R.
        number: of the block within the call, for its dropout.
    """

    queries: slice
    keys: slice
    hidden: torch.Tensor | None
    shape: tuple[int, int, int, int]
    number: int

    def fold(self, rows_BNQX):
        """The block's queries of [B, N, Q, X] as float32 [H, G * R, X]."""
        batch, key_heads, group, size = self.shape
        rows = rows_BNQX[:, :, self.queries].float()
        return rows.reshape(batch * key_heads, group * size, rows.shape[-1])

    def unfold(self, rows_HMX):
        """[H, G * R, X] back as [B, N, R, X]."""
        batch, key_heads, group, size = self.shape
        return rows_HMX.view(batch, key_heads * group, size, rows_HMX.shape[-1])

    def hide(self, scores_HMC, value):
        """Write ``value`` where a key is not seen."""
        if self.hidden is not None:
            self.unfold(scores_HMC).masked_fill_(self.hidden, value)

    def kept(self, scores_HMC, keep_prob, seed):
        """1 / keep_prob where an attention weight is kept and 0 elsewhere, None if all are."""
        if keep_prob == 1:
            return None
        generator = torch.Generator("cpu").manual_seed((seed + self.number * _MIXER) % (1 << 63))
        return torch.empty_like(scores_HMC).bernoulli_(keep_prob, generator=generator) / keep_prob


def blocks(call, q_BNQE, k_BJKE, first_number):
    """Cut the queries of some rows into blocks."""
    batch, heads, num_queries = q_BNQE.shape[:3]
    num_keys = k_BJKE.shape[2]
    low, high = _band(call, num_queries, num_keys)
    size = max(16, _BLOCK_NUMBERS // max(1, batch * heads * num_keys))
    found = []
    for start in range(0, num_queries, size):
        stop = min(start + size, num_queries)
        first = max(0, min(num_keys, start + low))
        last = max(first, min(num_keys, stop + high))
        found.append(
            Block(
                queries=slice(start, stop),
                keys=slice(first, last),
                hidden=_hidden(call, start, stop, first, last, low, high),
                shape=(batch, call.key_heads, heads // call.key_heads, stop - start),
                number=first_number + len(found),
            )
        )
    return found


def _band(call, num_queries, num_keys):
    """Query i sees keys i + low to i + high."""
    everything = num_queries + num_keys
    shift = num_keys - num_queries
    if call.sparse_mode == 2:
        return -everything, 0
    if call.sparse_mode == 3:
        return -everything, shift
    if call.sparse_mode == 4:
        return (
            shift - min(call.before, everything),
            shift + min(call.behind, everything),
        )
    if call.sparse_mode == 0 and call.mask is not None:
        return -min(call.before, everything), min(call.behind, everything)
    return -everything, everything


def _hidden(call, start, stop, first, last, low, high):
    hidden = None
    if start + high < last - 1 or stop - 1 + low > first:
        hidden = _outside(stop - start, last - first, start + low - first, start + high - first)
    if call.sparse_mode in (0, 1) and call.mask is not None:
        masked = call.mask[..., start:stop, first:last].bool()
        hidden = masked if hidden is None else hidden | masked
    return hidden


@functools.lru_cache(maxsize=64)
def _outside(num_rows, num_columns, low, high):
    """True where column c of row r is not between r + low and r + high."""
    distance = torch.arange(num_columns) - torch.arange(num_rows)[:, None]
    return (distance < low) | (distance > high)


def forward(call, query, key, value, seed):
    """Attend; output in the query's layout, maximum and sum of the softmax."""
    output = output_like(query, value, call)
    maximum, total = (statistics_like(query, call) for _ in range(2))
    number = 0
    for rows in groups_of(call):
        q = rows.take(call, query)
        k, v = (rows.take(call, part, of_keys=True) for part in (key, value))
        found = blocks(call, q, k, number)
        number += len(found)
        k_HKE, v_HKV = (part.float().flatten(0, 1) for part in (k, v))
        parts = [
            map(block.unfold, _attend(call, block, block.fold(q), k_HKE, v_HKV, seed))
            for block in found
        ]
        out, top, weight = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        rows.put(call, output, out)
        for tensor, values in ((maximum, top), (total, weight)):
            _put_statistics(rows, call, tensor, values)
    return output, maximum, total


def _put_statistics(rows, call, tensor, values_BNQ1):
    values = values_BNQ1.expand(-1, -1, -1, 8)
    if rows.queries is None:
        tensor.copy_(values)
    else:
        rows.put(call, tensor, values)


def _take_statistics(rows, call, tensor):
    return (tensor if rows.queries is None else rows.take(call, tensor))[..., :1]


def _scores(call, block, q_HME, k_HKE):
    return torch.matmul(q_HME.mul(call.scale), k_HKE[:, block.keys].transpose(1, 2))


def _attend(call, block, q_HME, k_HKE, v_HKV, seed):
    if block.keys.start == block.keys.stop:
        sums = q_HME.new_full((*q_HME.shape[:2], 1), HIGHEST)
        return v_HKV.new_zeros((*q_HME.shape[:2], v_HKV.shape[-1])), -sums, sums
    scores_HMC = _scores(call, block, q_HME, k_HKE)
    block.hide(scores_HMC, LOWEST)
    top_HM1 = scores_HMC.amax(-1, keepdim=True)
    weights_HMC = scores_HMC.sub_(top_HM1).exp_()
    sum_HM1 = weights_HMC.sum(-1, keepdim=True)
    if block.hidden is not None:
        # A query that sees nothing gives 0, with statistics that weigh nothing in a merge.
        blind_HM1 = top_HM1 == LOWEST
        if bool(blind_HM1.any()):
            weights_HMC.masked_fill_(blind_HM1, 0.0)
            sum_HM1.masked_fill_(blind_HM1, HIGHEST)
    kept_HMC = block.kept(weights_HMC, call.keep_prob, seed)
    if kept_HMC is not None:
        weights_HMC.mul_(kept_HMC)
    return torch.matmul(weights_HMC, v_HKV[:, block.keys]).div_(sum_HM1), top_HM1, sum_HM1


def backward(call, query, key, value, grad, output, maximum, total, seed):
    """Gradients of query, key and value by the given output and statistics."""
    grads = [torch.zeros_like(part) for part in (query, key, value)]
    number = 0
    for rows in groups_of(call):
        q, dout, out = (rows.take(call, part) for part in (query, grad, output))
        k, v = (rows.take(call, part, of_keys=True) for part in (key, value))
        top, weight = (_take_statistics(rows, call, part) for part in (maximum, total))
        found = blocks(call, q, k, number)
        number += len(found)
        k_HKE, v_HKV = (part.float().flatten(0, 1) for part in (k, v))
        dk_HKE, dv_HKV = torch.zeros_like(k_HKE), torch.zeros_like(v_HKV)
        dq = [
            block.unfold(
                _attend_backward(
                    call,
                    block,
                    (block.fold(q), k_HKE, v_HKV),
                    (block.fold(dout), block.fold(out)),
                    (block.fold(top), block.fold(weight)),
                    (dk_HKE, dv_HKV),
                    seed,
                )
            )
            for block in found
        ]
        rows.put(call, grads[0], torch.cat(dq, 2))
        rows.put(call, grads[1], dk_HKE.view(k.shape), of_keys=True)
        rows.put(call, grads[2], dv_HKV.view(v.shape), of_keys=True)
    return grads


def _attend_backward(call, block, parts, rows, statistics, key_grads, seed):
    """The queries' gradient; adds to those of keys and values."""
    (q_HME, k_HKE, v_HKV), (dout_HMV, out_HMV), (top_HM1, sum_HM1) = parts, rows, statistics
    dk_HKE, dv_HKV = key_grads
    scores_HMC = _scores(call, block, q_HME, k_HKE)
    block.hide(scores_HMC, -math.inf)
    weights_HMC = scores_HMC.sub_(top_HM1).exp_().div_(sum_HM1)
    kept_HMC = block.kept(weights_HMC, call.keep_prob, seed)
    dweights_HMC = torch.matmul(dout_HMV, v_HKV[:, block.keys].transpose(1, 2))
    kept_weights_HMC = weights_HMC
    if kept_HMC is not None:
        kept_weights_HMC = weights_HMC * kept_HMC
        dweights_HMC.mul_(kept_HMC)
    dv_HKV[:, block.keys].baddbmm_(kept_weights_HMC.transpose(1, 2), dout_HMV)
    delta_HM1 = (dout_HMV * out_HMV).sum(-1, keepdim=True)
    dscores_HMC = dweights_HMC.sub_(delta_HM1).mul_(weights_HMC)
    dk_HKE[:, block.keys].baddbmm_(dscores_HMC.transpose(1, 2), q_HME, alpha=call.scale)
    return torch.matmul(dscores_HMC, k_HKE[:, block.keys]).mul_(call.scale)


def num_weights(call, query, key):
    """Attention weights of the whole call; the real kernel draws a number for each."""
    pairs = (
        (rows.take(call, query), rows.take(call, key, of_keys=True)) for rows in groups_of(call)
    )
    return sum(math.prod(q.shape[:3]) * k.shape[2] for q, k in pairs)
