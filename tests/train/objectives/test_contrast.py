import pytest
import torch
from torch.nn import functional as F

from mllm_npu.train.objectives.contrast import Contrast, count_pairs, pair_texts

TEXTS = {0: [2, 3], 1: [9, 9], 2: [4], 3: [5, 6], 4: [2, 3]}


def test_pairs_are_sequences_with_one_tile_and_a_text(make_batch):
    batch = make_batch("rd2rrb", texts={**TEXTS, 3: []})
    pairs = pair_texts(batch)
    assert count_pairs(batch) == pairs.count == 2
    assert pairs.tiles_B.tolist() == [0, 5]
    assert pairs.ids_L.tolist() == [2, 3, 2, 3]
    assert pairs.positions_L.tolist() == [0, 1, 0, 1]
    assert pairs.ends == (2, 4)
    assert pairs.text_numbers_B.tolist() == [0, 0]


def test_different_texts_have_different_numbers(make_batch):
    pairs = pair_texts(make_batch("rrrr", texts={0: [2], 1: [3], 2: [2], 3: [2, 3]}))
    assert pairs.text_numbers_B.tolist() == [0, 1, 0, 2]
    assert pairs.ends == (1, 2, 3, 5)


@pytest.fixture
def contrast(make_language_model):
    torch.manual_seed(0)
    return Contrast(text_tower=make_language_model(), vision_width=6, width=5).eval()


def test_the_loss_is_the_sum_over_all_pairs(contrast, make_batch):
    batch = make_batch("rrr", texts={0: [2, 3], 1: [4], 2: [2, 3]})
    features = torch.randn(3, 4, 6)
    found = contrast(features, pair_texts(batch))
    tower = contrast.text_tower
    pictures, texts = [], []
    for number, ids in enumerate([[2, 3], [4], [2, 3]]):
        weights = contrast.attention(features[number]).softmax(0)
        pictures.append(contrast.vision_projection((features[number] * weights).sum(0)))
        embeds = tower.embed(torch.tensor(ids))
        hidden = tower(embeds, position_ids_T=torch.arange(len(ids)), sequence_ends=(len(ids),))
        texts.append(contrast.text_projection(hidden[-1]))
    expected = 0.0
    for row, picture in enumerate(pictures):
        for column, text in enumerate(texts):
            cosine = F.cosine_similarity(picture, text, dim=0)
            sign = 1 if row == column or {row, column} == {0, 2} else -1
            logit = cosine * contrast.log_scale.exp() + contrast.bias
            expected -= F.logsigmoid(sign * logit)
    torch.testing.assert_close(found, expected.squeeze())


def test_no_parameter_is_a_scalar_which_could_not_be_sharded(contrast):
    assert {name for name, p in contrast.named_parameters() if p.ndim == 0} == set()
    assert contrast.log_scale.item() == pytest.approx(2.3)
    assert contrast.bias.item() == pytest.approx(-6.0)


def test_a_batch_without_pairs_runs_the_same_path_with_no_weight(contrast, make_batch):
    batch = make_batch("db")
    assert count_pairs(batch) == 0
    loss = contrast(torch.randn(3, 4, 6), pair_texts(batch))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in contrast.parameters())


def test_learns_to_tell_pictures_apart(contrast, make_batch):
    batch = make_batch("rrrr", texts={0: [2], 1: [3], 2: [4], 3: [2]})
    features = torch.randn(4, 4, 6)
    features[3] = features[0]
    optimizer = torch.optim.Adam(contrast.parameters(), 2e-2)
    first = contrast(features, pair_texts(batch)).item()
    for _ in range(60):
        optimizer.zero_grad()
        contrast(features, pair_texts(batch)).backward()
        optimizer.step()
    assert contrast(features, pair_texts(batch)).item() < 0.2 * first
