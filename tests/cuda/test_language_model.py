"""A small Llama on the device gives what it gives on the CPU: packed, cached, in slots."""

import copy

import pytest
import torch

from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.language_model.slots import Span
from mllm_npu.ops.ways import calls

ENDS = (5, 6, 46, 58)
BLOCKS = ((7, 20), (50, 58))
PLACES = torch.cat([torch.arange(n) for n in (5, 1, 40, 12)])


def make_model(**changes):
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "max_position_embeddings": 64,
        **changes,
    }
    return HuggingFaceLanguageModel(config=config)


def run(model, device, dtype, *, blocks=()):
    """The states of a pack, its gradient, and the gradients of the weights."""
    model = copy.deepcopy(model).to(device)
    torch.manual_seed(1)
    embeds = torch.randn(ENDS[-1], 64).to(device).requires_grad_()
    pull = torch.randn(ENDS[-1], 64).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=dtype is torch.bfloat16):
        states = model(embeds, position_ids_T=PLACES.to(device), sequence_ends=ENDS, blocks=blocks)
        scores = model.logits(states)
    ((states.float() * pull).sum() + scores.float().square().mean()).backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    found = [states.detach(), embeds.grad, *gradients]
    return [one.cpu().float() for one in found]


@pytest.mark.parametrize("blocks", [(), BLOCKS], ids=["causal", "pictures see themselves"])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str
)
def test_a_pack_gives_states_and_gradients_of_the_cpu(device, dtype, limit, blocks):
    model = make_model()
    truth = run(model, "cpu", torch.float32, blocks=blocks)
    earlier = calls()
    found = run(model, device, dtype, blocks=blocks)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True)]
    assert max(errors) < limit, errors
    made = {way for op, way in calls() - earlier if op in ("packed_attention", "block_attention")}
    if device == "cuda" and dtype is torch.bfloat16:
        assert made <= {"flash library", "flash torch"}, made


@pytest.mark.parametrize("key_heads", [4, 2])
def test_slots_give_the_states_of_a_pack(device, key_heads):
    model = make_model(num_key_value_heads=key_heads).to(device).eval()
    embeds = torch.randn(2, 20, 64).to(device)
    places = torch.arange(20).repeat(2).to(device)
    with torch.inference_mode():
        whole = model(embeds.flatten(0, 1), position_ids_T=places, sequence_ends=(20, 40))
        slots = model.new_slots(2, 64)
        found = [[], []]
        for start, length in ((0, 12), (12, 5), (17, 1), (18, 1), (19, 1)):
            new = embeds[:, start : start + length].flatten(0, 1)
            spans = [Span(slot=slot, start=start, length=length) for slot in (0, 1)]
            for row, part in zip(found, slots.advance(new, spans).split(length), strict=True):
                row.append(part)
    ours = torch.cat([torch.cat(row) for row in found])
    torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-4)


def test_rows_of_unequal_length_extend_a_cache_together(device):
    model = make_model().to(device).eval()
    embeds = torch.randn(2, 9, 64).to(device)
    with torch.inference_mode():
        cache = model.new_cache()
        first = model.extend(embeds[:, :8], cache, (8, 5))
        last = model.extend(embeds[:, 8:], cache)
        alone = model.extend(torch.cat([embeds[1:, :5], embeds[1:, 8:]], 1), model.new_cache())
    torch.testing.assert_close(first[1:, :5], alone[:, :5], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last[1:], alone[:, 5:], atol=1e-5, rtol=1e-4)
