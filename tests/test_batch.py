"""Batches move whole, and the loss of a step does not depend on how it was cut."""

import dataclasses

import pytest
import torch

from mllm_npu.batch import Batch, Losses, LossTerm, Sample, whole_tiles


@pytest.fixture
def batch() -> Batch:
    """Two real sequences and the blank one, with one picture read and none drawn."""
    integers = {"dtype": torch.int64}
    return Batch(
        input_ids=torch.arange(6),
        position_ids=torch.tensor([0, 1, 0, 1, 0, 1]),
        sequence_ends=(2, 4, 6),
        target_positions=torch.tensor([0, 2]),
        targets=torch.tensor([1, 3]),
        target_sequences=torch.tensor([0, 1]),
        tiles=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        tile_positions=torch.full((2, 2), 0.5),
        read_tiles=torch.tensor([0]),
        read_slots=torch.tensor([[1]]),
        draw_tiles=torch.tensor([1]),
        draw_slots=torch.tensor([[5]]),
        draw_weights=torch.zeros(1),
        draw_sequences=torch.full((1,), 2, **integers),
        keys=("a", "b", ""),
        sources=("caption", "text", ""),
        tasks=("caption", "pure_text", ""),
    )


def test_counts_are_known_on_the_host(batch):
    assert batch.num_tokens == 6
    assert batch.num_samples == 2
    assert batch.num_targets == 2
    assert batch.num_drawn == 0


def test_a_sample_knows_its_length(batch):
    nothing = torch.zeros(0, 1, dtype=torch.int64)
    sample = Sample(
        input_ids=torch.arange(5),
        labels=torch.arange(5),
        tiles=torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
        tile_positions=torch.zeros(0, 2),
        read_tiles=nothing[:, 0],
        read_slots=nothing,
        draw_tiles=nothing[:, 0],
        draw_slots=nothing,
    )
    assert sample.num_tokens == 5
    assert sample.pictures is None


def test_every_tensor_moves_and_nothing_else_changes(batch):
    moved = batch.to("meta")
    for entry in dataclasses.fields(batch):
        before, after = getattr(batch, entry.name), getattr(moved, entry.name)
        if isinstance(before, torch.Tensor):
            assert after.is_meta, entry.name
            assert after.shape == before.shape
            assert after.dtype == before.dtype
        else:
            assert after == before, entry.name


def test_pictures_move_where_there_are_some(batch):
    pictures = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert batch.to("meta").pictures is None
    assert dataclasses.replace(batch, pictures=pictures).to("meta").pictures.is_meta


def test_values_that_travel_cannot_be_changed(batch):
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.num_drawn = 3


def losses(values: torch.Tensor, weight: float = 1.0) -> Losses:
    return Losses(
        terms={"language": LossTerm(total=values.sum(), count=len(values), weight=weight)}
    )


def test_a_cut_step_has_the_loss_of_the_whole_step():
    values = torch.tensor([1.0, 2.0, 3.0, 10.0, 4.0])
    whole = losses(values).total({"language": 5.0})
    cut = [losses(part).total({"language": 5.0}) for part in values.split([1, 4])]
    assert whole == pytest.approx(values.mean().item())
    assert sum(cut) == pytest.approx(whole.item())


def test_weights_scale_their_own_term_only():
    terms = {
        "language": LossTerm(total=torch.tensor(4.0), count=2),
        "image": LossTerm(total=torch.tensor(6.0), count=3, weight=0.5),
    }
    assert Losses(terms=terms).total({"language": 2.0, "image": 3.0}) == pytest.approx(3.0)


def test_a_term_without_elements_gives_zero_and_a_gradient():
    total = torch.zeros((), requires_grad=True)
    loss = Losses(terms={"image": LossTerm(total=total * 1.0, count=0)}).total({"image": 0.0})
    loss.backward()
    assert loss == 0.0
    assert total.grad == 1.0


def test_the_whole_picture_of_each_joined_token_is_known():
    """Two pictures: tiles 0, 1 and the whole 2; then a whole by itself, 3. Two tokens a tile."""
    sources = [[5], [6], [1], [2], [0], [3], [4], [0], [7], [8], [0]]
    assert whole_tiles(torch.tensor(sources), 2).tolist() == [2] * 8 + [3] * 3
