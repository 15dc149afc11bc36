"""Any encoder, any projector and any language model go together and learn."""

import itertools

import pytest
import torch

from mllm_npu.models.tiny import LANGUAGE_CONFIGS, VISION_CONFIGS, tiny_batch, tiny_mllm, tiny_seed

PROJECTORS = ("attention", "mlp", "pool")
COMBINATIONS = list(itertools.product(VISION_CONFIGS, PROJECTORS, LANGUAGE_CONFIGS))


def step(model, counts):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss = model(tiny_batch()).total(counts)
    loss.backward()
    optimizer.step()
    return loss.item(), model(tiny_batch()).total(counts).item()


def has_gradient(part):
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_there_are_as_many_combinations_as_promised():
    assert (len(VISION_CONFIGS), len(PROJECTORS), len(LANGUAGE_CONFIGS)) >= (4, 3, 4)
    assert len(COMBINATIONS) >= 48


@pytest.mark.parametrize(("vision", "projector", "language"), COMBINATIONS)
def test_every_combination_takes_a_training_step(vision, projector, language):
    model = tiny_mllm(vision=vision, projector=projector, language=language)
    before, after = step(model, {"language": 6})
    assert after < before
    for part in (model.vision_encoder, model.projector, model.language_model):
        assert has_gradient(part)


@pytest.mark.parametrize("language", LANGUAGE_CONFIGS)
def test_every_language_model_learns_to_draw_too(language):
    model = tiny_seed(language=language)
    before, after = step(model, {"language": 6, "image": 1})
    assert after < before
    assert has_gradient(model.output_projector)
