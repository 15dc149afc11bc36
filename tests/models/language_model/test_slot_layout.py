"""What tokens of a step see, against scores written out with a mask of everything."""

import math

import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.language_model.attention_hook import attention_forward
from mllm_npu.models.language_model.slot_cache import SlotCache
from mllm_npu.models.language_model.slot_layout import AttentionRule, SlotLayout
from mllm_npu.models.language_model.slots import Span

WIDTH, HEADS, KEY_HEADS = 8, 4, 2
HELD = (9, 3, 0, 14)


def make_cache(num_places=20):
    """Slots that hold random keys and values of layer 5 already."""
    cache = SlotCache(run=None, num_slots=len(HELD), max_tokens=num_places)
    for slot, num in enumerate(HELD):
        if num:
            spans = [Span(slot=slot, start=0, length=num)]
            index = cache.place_index(spans, KEY_HEADS, torch.device("cpu"))
            cache.store(5, *torch.randn(2, KEY_HEADS, num, WIDTH), index)
    return cache


def truth(cache, span, q_HCE, rule):
    """Scores of one span against its slot, with every rule as a mask."""
    keys, values = (part[0] for part in cache.seen(5, span.slot, span.slot + 1, span.end))
    keys, values = (part.repeat_interleave(HEADS // KEY_HEADS, 0) for part in (keys, values))
    scores = q_HCE @ keys.transpose(1, 2) * rule.scale
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    places = torch.arange(span.start, span.end)
    reach = places.clone()
    for first, end in span.blocks:
        reach[first:end] = span.start + end - 1
    distance = places[:, None] - torch.arange(span.end)
    visible = torch.arange(span.end) <= reach[:, None]
    if rule.window is not None:
        visible &= distance < rule.window
    return scores.masked_fill(~visible, -math.inf).softmax(-1) @ values


SPANS = {
    "all write": [(0, 9, 1), (1, 3, 1), (2, 0, 1), (3, 14, 1)],
    "some write, out of order": [(3, 14, 1), (0, 9, 1)],
    "one of many writes": [(3, 14, 1)],
    "one writes": [(0, 9, 1)],
    "pieces of prompts": [(1, 3, 5), (2, 0, 7)],
    "alike, from the beginning": [(0, 0, 5), (1, 0, 5), (2, 0, 5)],
    "alike, after some": [(0, 3, 4), (1, 3, 4)],
    "alike but for their slots": [(0, 3, 4), (3, 3, 4)],
    "both": [(0, 9, 1), (1, 3, 1), (3, 14, 4), (2, 0, 6)],
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize(
    "rule",
    [
        AttentionRule(scale=0.3),
        AttentionRule(scale=0.3, window=4),
        AttentionRule(scale=0.3, window=100),
        AttentionRule(scale=0.3, softcap=2.0, window=3),
    ],
)
def test_every_span_sees_its_own_slot(spans, rule):
    cache = make_cache()
    spans = [Span(slot=s, start=start, length=length) for s, start, length in spans]
    num = sum(span.length for span in spans)
    q = torch.randn(1, HEADS, num, WIDTH)
    k, v = torch.randn(2, 1, KEY_HEADS, num, WIDTH)
    layout = SlotLayout(cache=cache, spans=spans, device=torch.device("cpu"))
    out = layout.attend(5, q, k, v, rule)
    lengths = [span.length for span in spans]
    for span, own_q, own in zip(
        spans, q[0].split(lengths, 1), out[0].split(lengths, 1), strict=True
    ):
        torch.testing.assert_close(own, truth(cache, span, own_q, rule), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_a_block_sees_all_of_itself(window):
    cache, rule = make_cache(), AttentionRule(scale=0.3, window=window)
    for slot, start in ((0, 9), (2, 0)):
        span = Span(slot=slot, start=start, length=7, blocks=((1, 4), (5, 7)))
        q = torch.randn(1, HEADS, 7, WIDTH)
        k, v = torch.randn(2, 1, KEY_HEADS, 7, WIDTH)
        layout = SlotLayout(cache=cache, spans=[span], device=torch.device("cpu"))
        out = layout.attend(5, q, k, v, rule)
        torch.testing.assert_close(out[0], truth(cache, span, q[0], rule), atol=1e-6, rtol=1e-5)


def test_masks_are_made_once_for_all_layers_and_windows_are_told():
    cache = make_cache()
    spans = [Span(slot=0, start=9, length=1), Span(slot=1, start=3, length=4)]
    layout = SlotLayout(cache=cache, spans=spans, device=torch.device("cpu"), receipts=[])
    q, (k, v) = torch.randn(1, HEADS, 5, WIDTH), torch.randn(2, 1, KEY_HEADS, 5, WIDTH)
    rule = AttentionRule(scale=0.3)
    layout.attend(5, q, k, v, rule)
    masks = dict(layout._masks)
    layout.attend(5, q, k, v, rule)
    assert all(layout._masks[key] is mask for key, mask in masks.items())
    assert layout.receipts == [None, None]
    assert layout.positions_T.tolist() == [9, 3, 4, 5, 6]


def test_a_layer_that_does_not_know_its_number_is_refused():
    layout = SlotLayout(
        cache=make_cache(), spans=[Span(slot=0, start=9, length=1)], device=torch.device("cpu")
    )
    q, (k, v) = torch.randn(1, HEADS, 1, WIDTH), torch.randn(2, 1, KEY_HEADS, 1, WIDTH)
    with pytest.raises(ConfigError, match=r"Identity does not know.*per_sequence"):
        attention_forward(nn.Identity(), q, k, v, None, sequence_layout=layout)
