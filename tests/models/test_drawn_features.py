import pytest
import torch

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.drawn_features import DrawnFeatures


def make(**changes):
    return DrawnFeatures(**{"width": 3, "num_tokens": 4, "normalize": True} | changes)


def test_calibrated_features_have_mean_zero_and_deviation_one():
    features = torch.randn(50, 16, 3) * torch.tensor([1.0, 5.0, 0.1]) + 7
    drawn = make()
    assert not drawn.is_calibrated
    drawn.calibrate(features)
    out = drawn(features).flatten(0, 1)
    assert drawn.is_calibrated
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(3), atol=5e-3, rtol=0)


def test_measures_travel_with_the_weights():
    drawn, other = make(), make()
    drawn.calibrate(torch.randn(9, 16, 3) + 2)
    other.load_state_dict(drawn.state_dict())
    features = torch.randn(2, 16, 3)
    assert other.is_calibrated
    assert torch.equal(other(features), drawn(features))


def test_without_normalising_features_pass_as_they_are():
    drawn = make(normalize=False)
    features = torch.randn(2, 4, 3)
    drawn.calibrate(features)
    assert drawn.is_calibrated
    assert drawn(features) is features
    assert drawn.state_dict() == {}


def test_the_grid_is_pooled_by_squares_and_the_sequence_by_neighbours():
    features = torch.arange(16.0).view(1, 16, 1)
    grid = make(width=1, normalize=False)
    row = make(width=1, normalize=False, pooling="sequence")
    assert grid(features)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert row(features)[0, :, 0].tolist() == [1.5, 5.5, 9.5, 13.5]


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="got 5"):
        make(num_tokens=5)
    with pytest.raises(ConfigError, match="'cube'"):
        make(pooling="cube")
    with pytest.raises(DataError, match="two"):
        make(num_tokens=1).calibrate(torch.randn(1, 16, 3))
    with pytest.raises(DataError, match="9 vision tokens"):
        make(pooling="sequence").pool(torch.randn(1, 9, 3))
