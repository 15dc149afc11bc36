import pytest
import torch

from mllm_npu.models.losses import FEATURE_LOSSES, cosine_distance, squared_error


def test_squared_error_is_the_mean_over_tokens_and_dimensions():
    predicted = torch.zeros(2, 3, 4)
    target = torch.stack([torch.ones(3, 4), torch.full((3, 4), 2.0)])
    assert squared_error(predicted, target).tolist() == [1.0, 4.0]


def test_cosine_distance_sees_direction_only():
    target = torch.randn(1, 3, 4)
    assert cosine_distance(target * 5, target).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(-target, target).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("name", ["mse", "cosine"])
def test_each_picture_has_its_own_float32_loss(name):
    predicted, target = torch.randn(3, 2, 4).bfloat16(), torch.randn(3, 2, 4).bfloat16()
    losses = FEATURE_LOSSES[name](predicted, target)
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    alone = FEATURE_LOSSES[name](predicted[1:2], target[1:2])
    torch.testing.assert_close(losses[1:2], alone)
