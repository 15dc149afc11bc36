"""The operators npu_fusion_attention and npu_fusion_attention_grad."""

import torch

from torch_npu import _C, attention
from torch_npu.attention_checks import checked_call
from torch_npu.definitions import derive, register

_FORWARD = torch.ops.npu.npu_fusion_attention
_BACKWARD = torch.ops.npu.npu_fusion_attention_grad
_DEFAULTS = {a.name: a.default_value for a in _FORWARD.default._schema.arguments}
# What both take under one name; the factor of the scores has two.
_SHARED = (
    "pse",
    "padding_mask",
    "atten_mask",
    "keep_prob",
    "pre_tockens",
    "next_tockens",
    "inner_precise",
    "prefix",
    "actual_seq_qlen",
    "actual_seq_kvlen",
    "sparse_mode",
    "gen_mask_parallel",
    "sync",
    "softmax_layout",
    "sink",
)
_STATISTICS = ("attention_in", "softmax_max", "softmax_sum")


def npu_fusion_attention(query, key, value, head_num, input_layout, *args, **settings):
    """The operator, with the real package's refusal of lengths that lie in tensors."""
    for name in ("actual_seq_qlen", "actual_seq_kvlen"):
        if isinstance(settings.get(name), torch.Tensor):
            raise TypeError(
                f"npu_fusion_attention(): argument '{name}' must be tuple of ints, not Tensor"
            )
    return _FORWARD(query, key, value, head_num, input_layout, *args, **settings)


def _named(args):
    """The forward operator's arguments by name, defaults included."""
    return _DEFAULTS | dict(zip(_DEFAULTS, args, strict=False))


def _attend(*args):
    named = _named(args)
    call = checked_call(**named)
    parts = (named["query"], named["key"], named["value"])
    seed, num_drawn = 0, 0
    if call.keep_prob < 1:
        seed = _C.draw_seed(_C.current_device()) >> 1  # fits a signed number
        num_drawn = attention.num_weights(call, *parts[:2])
    outputs = attention.forward(call, *parts, seed)
    return *outputs, parts[0].new_empty(0), seed, 0, num_drawn


def _attend_without_values(*args):
    named = _named(args)
    call = checked_call(**named)
    query, value = named["query"], named["value"]
    statistics = (attention.statistics_like(query, call) for _ in range(2))
    output = attention.output_like(query, value, call)
    return output, *statistics, query.new_empty(0), 0, 0, 0


def _attend_back(query, key, value, dy, head_num, input_layout, **settings):
    call = _backward_call(query, key, value, dy, head_num, input_layout, settings)
    given = [settings[name] for name in _STATISTICS]
    grads = attention.backward(call, query, key, value, dy, *given, settings.get("seed", 0))
    return *grads, query.new_empty(0), query.new_empty(0)


def _attend_back_without_values(query, key, value, dy, head_num, input_layout, **settings):
    _backward_call(query, key, value, dy, head_num, input_layout, settings)
    grads = (torch.empty_like(part) for part in (query, key, value))
    return *grads, query.new_empty(0), query.new_empty(0)


def _backward_call(query, key, value, dy, head_num, input_layout, settings):
    missing = [name for name in _STATISTICS if settings.get(name) is None]
    if missing:
        raise RuntimeError(f"npu_fusion_attention_grad needs {', '.join(missing)}")
    if dy.dtype != query.dtype:
        raise RuntimeError(f"npu_fusion_attention_grad: dy is {dy.dtype}, query {query.dtype}")
    shared = {name: settings.get(name, _DEFAULTS[name]) for name in _SHARED}
    scale = settings.get("scale_value", 1.0)
    return checked_call(query, key, value, head_num, input_layout, scale=scale, **shared)


def _save(ctx, inputs, output):
    named = _named(inputs)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:4])
    parts = (named[name] for name in ("query", "key", "value", "atten_mask"))
    ctx.save_for_backward(*parts, *output[:3])
    ctx.settings = {name: named[name] for name in _SHARED if name != "atten_mask"}
    ctx.settings |= {"scale_value": named["scale"], "seed": output[4], "offset": output[5]}
    ctx.heads_and_layout = (named["head_num"], named["input_layout"])


def _derive(ctx, grad, *_):
    if grad is None:
        return ()
    query, key, value, mask, *results = ctx.saved_tensors
    grads = _BACKWARD(
        query,
        key,
        value,
        grad,
        *ctx.heads_and_layout,
        atten_mask=mask,
        **dict(zip(_STATISTICS, results, strict=True)),
        **ctx.settings,
    )
    return grads[:3]


register("npu_fusion_attention", _attend, on_meta=_attend_without_values)
register("npu_fusion_attention_grad", _attend_back, on_meta=_attend_back_without_values)
derive("npu_fusion_attention", _save, _derive)
