"""Tokens of a tile that see all of their tile: in a pack, on a cache, against stock attention."""

import dataclasses

import pytest
import torch
from transformers import LlamaForCausalLM

from mllm_npu.batch import tile_blocks
from mllm_npu.errors import ConfigError
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.tiny import LANGUAGE_CONFIGS, tiny_batch, tiny_mllm, tiny_seed

ENDS = (9, 20)
BLOCKS = ((2, 6), (6, 9), (12, 17))


def stock_mask(blocks=BLOCKS, ends=ENDS) -> torch.Tensor:
    """True where a token sees another, [1, 1, T, T]."""
    sees = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for start, end in zip((0, *ends), ends, strict=False):
        sees[start:end, start:end] = torch.ones(end - start, end - start).tril().bool()
    for start, end in blocks:
        sees[start:end, start:end] = True
    return sees[None, None]


def test_a_pack_with_blocks_is_stock_attention_with_that_mask(positions):
    torch.manual_seed(0)
    ours = HuggingFaceLanguageModel(config=LANGUAGE_CONFIGS["llama"])
    config = ours.causal_lm.config.to_dict()
    stock = LlamaForCausalLM._from_config(
        type(ours.causal_lm.config)(**config), attn_implementation="sdpa"
    )
    stock.load_state_dict(ours.causal_lm.state_dict())
    embeds = torch.randn(ENDS[-1], ours.width)
    one, other = embeds.clone().requires_grad_(), embeds.clone().requires_grad_()
    found = ours(one, position_ids_T=positions(ENDS), sequence_ends=ENDS, blocks=BLOCKS)
    truth = stock.model(
        inputs_embeds=other[None], position_ids=positions(ENDS)[None], attention_mask=stock_mask()
    ).last_hidden_state[0]
    torch.testing.assert_close(found, truth, atol=2e-5, rtol=1e-4)
    weights = torch.randn_like(found)
    for hidden in (found, truth):
        (hidden * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=5e-5, rtol=1e-3)


@pytest.fixture
def positions():
    def make(ends):
        return torch.cat(
            [torch.arange(end - start) for start, end in zip((0, *ends), ends, strict=False)]
        )

    return make


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_rows_on_a_cache_are_what_the_pack_is(positions, family):
    torch.manual_seed(0)
    model = HuggingFaceLanguageModel(config=LANGUAGE_CONFIGS[family]).eval()
    embeds = torch.randn(ENDS[-1], model.width)
    packed = model(embeds, position_ids_T=positions(ENDS), sequence_ends=ENDS, blocks=BLOCKS)
    rows = torch.zeros(2, 11, model.width)
    rows[0, :9], rows[1] = embeds[:9], embeds[9:]
    cache = model.new_cache()
    own = [((2, 6), (6, 9)), ((3, 8),)]
    hidden = model.extend(rows, cache, [9, 11], blocks=own)
    torch.testing.assert_close(hidden[0, :9], packed[:9], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden[1], packed[9:], atol=1e-5, rtol=1e-4)
    # What is chosen afterwards is causal, and sees all of the block.
    more = torch.randn(2, 1, model.width)
    ends = (10, 22)
    longer = torch.cat([embeds[:9], more[0], embeds[9:], more[1]])
    again = model(
        longer,
        position_ids_T=positions(ends),
        sequence_ends=ends,
        blocks=((2, 6), (6, 9), (13, 18)),
    )
    following = model.extend(more, cache)[:, 0]
    torch.testing.assert_close(following, again[[9, 21]], atol=1e-5, rtol=1e-4)


def with_blocks(batch):
    return dataclasses.replace(batch, read_blocks=tile_blocks(batch.read_slots))


@pytest.mark.parametrize("make", [tiny_mllm, tiny_seed])
def test_a_model_lets_tokens_of_a_tile_see_each_other_only_where_it_is_asked(make):
    model = make().eval()
    batch = with_blocks(tiny_batch())
    first = int(batch.read_slots[0, 0])

    def change_seen_at_first_slot() -> float:
        features = model.encode_tiles(batch.tiles).detach()
        embeds = model.embed_batch(batch, features).detach()
        moved = embeds.clone()
        moved[int(batch.read_slots[0, -1])] += 1.0
        hidden = []
        for given in (embeds, moved):
            model.embed_batch = lambda *_, given=given: given
            hidden.append(model.hidden(batch, tile_features_IKV=features))
        del model.embed_batch
        assert torch.equal(hidden[0][:first], hidden[1][:first])
        return (hidden[0] - hidden[1])[first].abs().max().item()

    assert change_seen_at_first_slot() == 0.0
    model.bidirectional_images = True
    assert change_seen_at_first_slot() > 1e-4


def test_losses_reach_every_weight_and_a_pack_without_a_picture_runs_too():
    model = tiny_mllm()
    model.bidirectional_images = True
    for batch in (with_blocks(tiny_batch()), with_blocks(tiny_batch(reads=False))):
        model.zero_grad()
        model(batch).total({"language": 6.0}).backward()
        grads = [p.grad for p in model.language_model.parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)


def test_it_is_a_setting_of_both_architectures():
    parts = dict(tiny_mllm().named_children())
    assert not GeneralizedMultimodalModel(**parts).bidirectional_images
    assert GeneralizedMultimodalModel(**parts, bidirectional_images=True).bidirectional_images


def test_what_cannot_have_blocks_is_refused(positions):
    rows = HuggingFaceLanguageModel(config=LANGUAGE_CONFIGS["llama"], attention="per_sequence")
    embeds = torch.randn(ENDS[-1], rows.width)
    given = {"position_ids_T": positions(ENDS), "sequence_ends": ENDS, "blocks": BLOCKS}
    with pytest.raises(ConfigError, match="attention=packed"):
        rows(embeds, **given)
    with pytest.raises(ConfigError, match="attention=packed"):
        rows.extend(embeds[None], rows.new_cache(), blocks=[((0, 2),)])
    windowed = HuggingFaceLanguageModel(
        config={**LANGUAGE_CONFIGS["llama"], "model_type": "mistral", "sliding_window": 4}
    )
    with pytest.raises(ConfigError, match=r"'window': 4.*bidirectional_images=false"):
        windowed(embeds, **given)


def test_blocks_are_read_from_slots_in_rising_order():
    slots = torch.tensor([[12, 13, 14], [2, 3, 4]])
    assert tile_blocks(slots) == ((2, 5), (12, 15))
    assert tile_blocks(torch.empty(0, 3, dtype=torch.int64)) == ()
