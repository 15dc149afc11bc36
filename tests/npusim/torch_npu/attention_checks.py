"""Refuse misuse of fused attention, which the real device computes without a word.

The real host code checks little: a mask that is inverted, lengths in place of cumulative ends or a
wrong number of heads give wrong numbers there. Where it does check, the words here are its own.
"""

from dataclasses import dataclass

import torch

from torch_npu.argument_checks import FLOATS, check

LAYOUTS = {"BSH": 3, "SBH": 3, "BNSD": 4, "BSND": 4, "TND": 3}
"""Dimensions of the query per layout."""
HEAD_AXIS = {"BNSD": 1, "BSND": 2, "TND": 1}
UNLIMITED = 2147483647
COMPRESSED = 2048
"""Side of the one mask that sparse modes 2, 3 and 4 take for any length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """The arguments of fused attention that forward and backward share, checked.

    Args:
        layout: one of LAYOUTS.
        head_num: query heads.
        key_heads: heads of key and value.
        mask: True where a key is hidden, None where all are seen.
        scale: factor of the scores.
        keep_prob: share of attention weights kept.
        before: keys before the query's own that are seen, for the modes with a band.
        behind: keys behind it.
        query_ends: cumulative ends of the sequences, for TND.
        key_ends: the same of the keys.
        sparse_mode: what the mask means.
    """

    layout: str
    head_num: int
    key_heads: int
    mask: torch.Tensor | None
    scale: float
    keep_prob: float
    before: int
    behind: int
    query_ends: tuple[int, ...] | None
    key_ends: tuple[int, ...] | None
    sparse_mode: int


def checked_call(query, key, value, head_num, input_layout, **settings):
    """The arguments of npu_fusion_attention as an AttentionCall.

    Raises:
        RuntimeError: the device would refuse them, or compute something nobody wants.
        NotImplementedError: the device takes them, the simulation does not.
    """
    layout = input_layout.upper()
    check(
        layout in LAYOUTS,
        "The input_layout should be BSH/SBH/BNSD/BSND/TND(case-insensitive), "
        f"but got {input_layout}",
    )
    _check_unsimulated(settings)
    _check_numbers(query, key, value, layout, settings)
    key_heads = _checked_heads(query, key, value, head_num, layout)
    ends = _checked_ends(query, key, layout, settings)
    _check_mask(query, key, head_num, layout, ends, settings)
    return AttentionCall(
        layout=layout,
        head_num=head_num,
        key_heads=key_heads,
        mask=settings["atten_mask"],
        scale=settings["scale"],
        keep_prob=settings["keep_prob"],
        before=settings["pre_tockens"],
        behind=settings["next_tockens"],
        query_ends=ends and ends[0],
        key_ends=ends and ends[1],
        sparse_mode=settings["sparse_mode"],
    )


def _check_unsimulated(settings):
    for name in ("pse", "padding_mask", "sink", "dropout_mask", "prefix"):
        if settings.get(name) is not None:
            raise NotImplementedError(f"npu_fusion_attention: {name} is not simulated")
    for name in ("seed", "offset", "softmax_layout"):
        if settings.get(name):
            raise NotImplementedError(f"npu_fusion_attention: {name} is not simulated")
    if settings["sparse_mode"] in (5, 6, 7, 8):
        raise NotImplementedError(
            f"npu_fusion_attention: sparse_mode {settings['sparse_mode']} is not simulated"
        )


def _check_numbers(query, key, value, layout, settings):
    check(
        query.dtype in FLOATS and query.dtype == key.dtype == value.dtype,
        "npu_fusion_attention: query, key and value must have one dtype of float16, bfloat16, "
        f"float32, but got {query.dtype}, {key.dtype}, {value.dtype}",
    )
    keep_prob, mode = settings["keep_prob"], settings["sparse_mode"]
    check(
        0 < keep_prob <= 1,
        f"The keep_prob value must be in range of (0, 1], but got {keep_prob}",
    )
    scope = "[0,5) or (5,8]" if layout == "TND" else "[0,6]"
    check(
        0 <= mode <= (8 if layout == "TND" else 6),
        f"The sparse_mode value must be in range of {scope}, but got {mode}",
    )


def _checked_heads(query, key, value, head_num, layout):
    """Number of key heads."""
    for name, part in (("query", query), ("key", key), ("value", value)):
        check(
            part.dim() == LAYOUTS[layout],
            f"The shapes of the input {name} should be {LAYOUTS[layout]} dimensional for layout "
            f"{layout}, but got {part.dim()}-dimensional",
        )
    if layout in HEAD_AXIS:
        axis = HEAD_AXIS[layout]
        heads, key_heads, value_heads = (part.shape[axis] for part in (query, key, value))
        width, key_width = query.shape[-1], key.shape[-1]
        check(heads == head_num, f"head_num is {head_num}, but query has {heads} heads")
    else:
        check(
            query.shape[-1] % head_num == 0,
            f"head_num {head_num} does not divide the query's width {query.shape[-1]}",
        )
        width = key_width = query.shape[-1] // head_num
        check(
            key.shape[-1] % width == 0,
            f"head_num {head_num} gives heads of width {width}, which do not divide the key's "
            f"width {key.shape[-1]}",
        )
        key_heads = value_heads = key.shape[-1] // width
    check(width == key_width, f"query heads have width {width}, key heads {key_width}")
    check(key_heads == value_heads, f"key has {key_heads} heads, value {value_heads}")
    check(width <= 768, f"heads of width {width} are wider than 768")
    check(
        key_heads > 0 and head_num % key_heads == 0,
        f"the number of query heads {head_num} is not a multiple of the key heads {key_heads}",
    )
    return key_heads


def _checked_ends(query, key, layout, settings):
    """Cumulative ends of queries and keys for TND, None for the other layouts."""
    given = [settings["actual_seq_qlen"], settings["actual_seq_kvlen"]]
    if layout != "TND":
        return None
    check(
        all(ends is not None and len(ends) for ends in given),
        "layout TND needs actual_seq_qlen and actual_seq_kvlen",
    )
    ends, key_ends = list(given[0]), list(given[1])
    check(len(ends) == len(key_ends), "actual_seq_qlen and actual_seq_kvlen differ in length")
    while len(ends) > 1 and ends[-1] == 0 and key_ends[-1] == 0:  # batches that take no part
        ends.pop()
        key_ends.pop()
    rows = (("actual_seq_qlen", ends, query), ("actual_seq_kvlen", key_ends, key))
    for name, row, tensor in rows:
        check(
            all(end >= start for start, end in zip([0, *row], row, strict=False)),
            f"{name} must hold cumulative ends, which do not fall, but got {row}",
        )
        check(
            row[-1] == tensor.shape[0],
            f"{name} must hold cumulative ends: its last is {row[-1]}, but there are "
            f"{tensor.shape[0]} tokens (lengths in place of ends, or tokens left uninitialised)",
        )
    return tuple(ends), tuple(key_ends)


def _check_mask(query, key, head_num, layout, ends, settings):
    mask, mode = settings["atten_mask"], settings["sparse_mode"]
    if mask is None:
        is_limited = min(settings["pre_tockens"], settings["next_tockens"]) < UNLIMITED
        check(
            mode == 0 and not is_limited,
            f"sparse_mode {mode} without atten_mask: the device ignores sparse_mode, pre_tockens "
            "and next_tockens then and attends to everything",
        )
        return
    check(
        mask.dtype in (torch.bool, torch.uint8),
        f"atten_mask must be bool or uint8, but got {mask.dtype} (additive masks are not taken)",
    )
    if mode in (2, 3, 4):
        check(
            tuple(mask.shape) == (COMPRESSED, COMPRESSED),
            f"sparse_mode {mode} needs the compressed atten_mask [{COMPRESSED}, {COMPRESSED}], "
            f"torch.triu(ones, diagonal=1), but got {list(mask.shape)}",
        )
        check(_is_upper_triangle(mask), _INVERTED + f"torch.triu(ones, 1) for sparse_mode {mode}")
        return
    _check_mask_shape(mask, query, key, head_num, layout, ends)
    check(not _hides_every_own_key(mask), _INVERTED + "here every query is hidden from its own key")


_INVERTED = "atten_mask must be 1 where a key is masked out, the opposite of SDPA's mask: "


def _is_upper_triangle(mask):
    """Whether the border of the mask is the one of an upper triangle without its diagonal."""
    if mask.device.type == "meta":
        return True
    host = mask.bool()
    is_lower_free = not bool(host[:, 0].any()) and not bool(host[-1].any())
    return is_lower_free and bool(host[0, 1:].all()) and bool(host[:-1, -1].all())


def _hides_every_own_key(mask):
    """Whether the diagonal of a square mask is masked out everywhere, as in an inverted one."""
    if mask.device.type == "meta" or mask.shape[-1] != mask.shape[-2] or mask.shape[-1] < 2:
        return False
    return bool(mask.diagonal(dim1=-2, dim2=-1).all())


def _check_mask_shape(mask, query, key, head_num, layout, ends):
    if layout == "TND":
        longest = [
            max(end - start for start, end in zip((0, *row), row, strict=False)) for row in ends
        ]
        check(
            mask.dim() == 2 and all(m >= n for m, n in zip(mask.shape, longest, strict=True)),
            f"atten_mask of layout TND must be [queries, keys] of the longest sequence {longest}, "
            f"but got {list(mask.shape)}",
        )
        return
    axes = {"BSH": (0, 1), "SBH": (1, 0), "BNSD": (0, 2), "BSND": (0, 1)}[layout]
    wanted = (query.shape[axes[0]], head_num, query.shape[axes[1]], key.shape[axes[1]])
    batch, heads = (1,) * (4 - mask.dim()) + tuple(mask.shape[:-2])
    check(
        mask.dim() in (2, 4)
        and tuple(mask.shape[-2:]) == wanted[2:]
        and (batch, heads) in {(1, 1), (wanted[0], 1), wanted[:2]},
        "atten_mask must be [queries, keys], [1, 1, queries, keys], [batch, 1, queries, keys] or "
        f"{list(wanted)}, but got {list(mask.shape)}",
    )
