"""Requests in slots, fed in pieces beside others, give what each gives alone."""

import random

import pytest
import torch

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.language_model.own_caches import OwnCaches
from mllm_npu.models.language_model.slot_cache import SlotCache
from mllm_npu.models.language_model.slots import Span

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")
FAMILIES += ("phi3", "gpt_neox", "opt", "gpt2", "cohere", "granite")
LENGTHS = (23, 5, 40, 1, 17)


def make_model(family_config, family, **options):
    torch.manual_seed(0)
    return HuggingFaceLanguageModel(config=family_config(family), **options).eval()


def alone(model, embeds_LD, blocks=()):
    with torch.inference_mode():
        return model.extend(embeds_LD[None], model.new_cache(), blocks=[blocks] if blocks else ())[
            0
        ]


def feed(slots, rows, pieces):
    """Feed (slot, number of tokens) pairs step by step; -> states of each row so far."""
    held, found = [0] * len(rows), [[] for _ in rows]
    with torch.inference_mode():
        for step in pieces:
            spans = [Span(slot=s, start=held[s], length=n) for s, n in step]
            embeds = torch.cat([rows[span.slot][span.start : span.end] for span in spans])
            hidden = slots.advance(embeds, spans).split([span.length for span in spans])
            for span, part in zip(spans, hidden, strict=True):
                held[span.slot] = span.end
                found[span.slot].append(part)
    return [torch.cat(parts) if parts else None for parts in found]


def random_pieces(lengths, seed):
    """Some requests of every step: first those with one token, then longer pieces."""
    rng, left, steps = random.Random(seed), list(lengths), []
    while any(left):
        step = []
        for slot, rest in enumerate(left):
            if rest and rng.random() < 0.8:
                num = 1 if rng.random() < 0.5 else rng.randint(1, min(rest, 9))
                step.append((slot, num))
                left[slot] -= num
        if step:
            steps.append(sorted(step, key=lambda pair: pair[1] > 1))
    return steps


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_beside_others_equal_each_request_alone(family_config, family):
    model = make_model(family_config, family)
    rows = [torch.randn(length, model.width) * 0.5 for length in LENGTHS]
    slots = model.new_slots(len(rows), 48)
    assert isinstance(slots, SlotCache)
    found = feed(slots, rows, random_pieces(LENGTHS, seed=len(family)))
    for row, states in zip(rows, found, strict=True):
        torch.testing.assert_close(states, alone(model, row), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["falcon", "llama"])
def test_a_family_without_packed_attention_runs_each_on_its_own_cache(family_config, family):
    model = make_model(family_config, family, attention="per_sequence")
    rows = [torch.randn(length, model.width) * 0.5 for length in LENGTHS]
    slots = model.new_slots(len(rows), 48)
    assert isinstance(slots, OwnCaches)
    found = feed(slots, rows, random_pieces(LENGTHS, seed=1))
    for row, states in zip(rows, found, strict=True):
        torch.testing.assert_close(states, alone(model, row), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_blocks_see_all_of_themselves_wherever_a_prompt_is_cut(family_config, family):
    model = make_model(family_config, family)
    row, blocks = torch.randn(30, model.width) * 0.5, ((3, 9), (14, 22))
    whole = alone(model, row, blocks)
    slots, found = model.new_slots(2, 32), []
    with torch.inference_mode():
        for start, end in ((0, 3), (3, 12), (12, 13), (13, 30)):
            own = tuple((a - start, b - start) for a, b in blocks if start <= a and b <= end)
            span = Span(slot=1, start=start, length=end - start, blocks=own)
            found.append(slots.advance(row[start:end], [span]))
    torch.testing.assert_close(torch.cat(found), whole, atol=1e-5, rtol=1e-4)


def test_a_slot_is_used_again_and_nothing_is_left_of_who_was_there(family_config):
    model = make_model(family_config, "llama")
    slots = model.new_slots(2, 48)
    long, short = torch.randn(40, model.width), torch.randn(6, model.width)
    feed(slots, [long, long], [[(0, 40), (1, 40)]])
    size = slots.num_bytes
    found = feed(slots, [short, short], [[(0, 4), (1, 5)], [(0, 1), (1, 1)], [(0, 1)]])
    for states in found:
        torch.testing.assert_close(states, alone(model, short), atol=1e-5, rtol=1e-4)
    assert slots.num_bytes == size > 0


def test_a_request_goes_on_in_another_slot_and_from_a_copy(family_config):
    model = make_model(family_config, "qwen3")
    row = torch.randn(20, model.width)
    whole = alone(model, row)
    slots = model.new_slots(3, 48)
    with torch.inference_mode():
        slots.advance(row[:12], [Span(slot=2, start=0, length=12)])
        kept = slots.read(2, 12)
        slots.move(2, 0, 12)
        slots.write(1, kept, 10)
        moved = slots.advance(row[12:], [Span(slot=0, start=12, length=8)])
        copied = slots.advance(row[10:], [Span(slot=1, start=10, length=10)])
    torch.testing.assert_close(moved, whole[12:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(copied, whole[10:], atol=1e-5, rtol=1e-4)


def test_slots_that_begin_small_grow_and_keep_what_they_hold(family_config):
    model = make_model(family_config, "llama")
    row = torch.randn(60, model.width)
    slots = model.new_slots(2, 64, first_tokens=4)
    [_, found] = feed(slots, [row, row], [[(1, 4)], [(1, 1)], [(1, 50)], [(1, 5)]])
    torch.testing.assert_close(found, alone(model, row), atol=1e-5, rtol=1e-4)
    assert slots.num_places == 64


@pytest.mark.parametrize(("slot", "length"), [(2, 3), (0, 49)])
def test_what_does_not_fit_is_refused(family_config, slot, length):
    model = make_model(family_config, "llama")
    slots = model.new_slots(2, 48)
    with pytest.raises(RequestError, match="2 slots of 48 tokens"):
        slots.advance(torch.randn(length, model.width), [Span(slot=slot, start=0, length=length)])


def test_a_family_with_layers_outside_attention_is_refused_at_its_first_step():
    config = {"model_type": "lfm2", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 50}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = HuggingFaceLanguageModel(config={**config, "layer_types": ["conv", "full_attention"]})
    with pytest.raises(ConfigError, match="1 of 2 layers"):
        model.new_slots(1, 8).advance(torch.randn(4, 32), [Span(slot=0, start=0, length=4)])
