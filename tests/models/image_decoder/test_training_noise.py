"""Variances of the training schedule, and how much each time counts."""

import pytest
import torch
from diffusers.configuration_utils import FrozenDict

from mllm_npu.errors import ConfigError
from mllm_npu.models.image_decoder.training_noise import TrainingNoise

CONFIG = FrozenDict(
    num_train_timesteps=4,
    beta_start=0.1,
    beta_end=0.4,
    beta_schedule="linear",
    prediction_type="epsilon",
)
SIGNAL = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7, 0.9 * 0.8 * 0.7 * 0.6])
"""Products of one minus each of the betas .1, .2, .3, .4."""


def test_noise_is_added_by_the_variances():
    noise = TrainingNoise(CONFIG)
    clean, times = torch.ones(4, 1, 1, 1), torch.arange(4)
    assert noise.num_times == 4
    nothing = torch.zeros(4, 1, 1, 1)
    torch.testing.assert_close(noise.add(clean, nothing, times).flatten(), SIGNAL.sqrt())
    torch.testing.assert_close(noise.add(nothing, clean, times).flatten(), (1 - SIGNAL).sqrt())


def test_min_snr_weights():
    times = torch.arange(4)
    assert TrainingNoise(CONFIG).loss_weights(times).tolist() == [1] * 4
    ratio = SIGNAL / (1 - SIGNAL)  # 9, 2.57, 1.02, .43
    expected = torch.tensor([2 / ratio[0], 2 / ratio[1], 1.0, 1.0])
    weights = TrainingNoise(CONFIG, min_snr_gamma=2.0).loss_weights(times)
    torch.testing.assert_close(weights, expected)


def test_variances_are_those_of_the_scheduler_however_it_is_told_them():
    told = FrozenDict(CONFIG | {"trained_betas": (0.1, 0.2, 0.3, 0.4), "beta_start": 0.7})
    assert torch.equal(TrainingNoise(told)._signal, TrainingNoise(CONFIG)._signal)
    rescaled = TrainingNoise(
        FrozenDict(CONFIG | {"rescale_betas_zero_snr": True}), min_snr_gamma=2.0
    )
    assert rescaled._signal[-1] == 0
    assert rescaled.loss_weights(torch.tensor([3])) == 1


@pytest.mark.parametrize("gamma", [0, -1.0, float("nan")])
def test_a_gamma_that_makes_no_sense_is_refused(gamma):
    with pytest.raises(ConfigError, match="min_snr_gamma"):
        TrainingNoise(CONFIG, min_snr_gamma=gamma)


def test_a_model_that_predicts_something_else_is_refused():
    other = FrozenDict(CONFIG | {"prediction_type": "v_prediction"})
    with pytest.raises(ConfigError, match="must be epsilon"):
        TrainingNoise(other)
