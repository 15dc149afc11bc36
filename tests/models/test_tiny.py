import pytest
import torch

from mllm_npu.models.interfaces import count_parameters
from mllm_npu.models.tiny import (
    LANGUAGE_CONFIGS,
    NUM_QUERIES,
    TILE_SIZE,
    VOCAB_SIZE,
    tiny_batch,
    tiny_language_model,
    tiny_mllm,
    tiny_seed,
    tiny_vision_encoder,
)


def test_tiny_models_are_tiny():
    assert count_parameters([tiny_seed()]) < 120_000
    assert count_parameters([tiny_mllm()]) < 40_000


def test_shared_parameters_are_counted_once():
    model = tiny_language_model("llama")
    own = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters([model, model]) == own


@pytest.mark.parametrize("family", LANGUAGE_CONFIGS)
def test_language_models_have_the_size_they_say(family):
    model = tiny_language_model(family)
    assert (model.width, model.vocab_size) == (32, VOCAB_SIZE)


def test_the_encoder_fits_the_batch():
    assert tiny_vision_encoder().tile_size == TILE_SIZE
    assert tiny_batch().tiles.shape == (2, 3, TILE_SIZE, TILE_SIZE)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("draws", [True, False])
def test_batches_keep_what_a_batch_promises(reads, draws):
    batch = tiny_batch(reads=reads, draws=draws)
    starts = torch.tensor((0, *batch.sequence_ends[:-1]))
    ends = torch.tensor(batch.sequence_ends)
    assert batch.num_tokens == batch.sequence_ends[-1]
    assert torch.equal(batch.position_ids[starts], torch.zeros(4, dtype=torch.int64))
    assert torch.equal(batch.targets, batch.input_ids[batch.target_positions + 1])
    sequences = batch.target_sequences
    assert (batch.target_positions >= starts[sequences]).all()
    assert (batch.target_positions + 1 < ends[sequences]).all()
    assert batch.num_drawn == int(batch.draw_weights.sum()) == int(draws)
    slots = torch.cat([batch.read_slots.flatten(), batch.draw_slots.flatten()])
    assert slots.unique().numel() == 2 * NUM_QUERIES
    assert slots.max() < batch.num_tokens
    assert ((batch.read_slots >= starts[3]).all().item()) == (not reads)
    assert ((batch.draw_slots >= starts[3]).all().item()) == (not draws)
    assert batch.num_samples == 3
