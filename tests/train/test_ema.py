import pytest
import torch
from torch import nn

from mllm_npu.errors import CheckpointError, ConfigError
from mllm_npu.train.ema import Ema


def test_follows_the_formula_with_warm_up():
    weight = nn.Parameter(torch.zeros(2))
    ema = Ema({"weight": weight}, decay=0.3)
    expected = 0.0
    for number in range(6):
        with torch.no_grad():
            weight.add_(1.0)
        ema.update()
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * (number + 1)
        assert ema.averages["weight"].tolist() == pytest.approx([expected] * 2)
    assert ema.num_updates == 6


def test_apply_puts_the_averages_in_place():
    weight = nn.Parameter(torch.zeros(2))
    ema = Ema({"weight": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(4.0)
    ema.apply()
    assert weight.tolist() == [0.0, 0.0]


def test_goes_on_from_loaded_averages():
    weight = nn.Parameter(torch.ones(2))
    ema = Ema({"weight": weight}, decay=0.5)
    ema.load({"weight": torch.full((2,), 3.0)}, num_updates=100)
    ema.update()
    assert ema.averages["weight"].tolist() == [2.0, 2.0]
    with pytest.raises(CheckpointError, match="other"):
        ema.load({"other": torch.ones(2)}, num_updates=0)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_refuses_a_decay_outside_the_open_interval(decay):
    with pytest.raises(ConfigError, match="ema_decay"):
        Ema({}, decay=decay)


def test_averages_of_half_precision_weights_move():
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    ema = Ema({"w": weight}, decay=0.999)
    ema.num_updates = 100_000
    with torch.no_grad():
        weight.fill_(2)
    for _ in range(1000):
        ema.update()
    assert ema.averages["w"].dtype == torch.float32
    assert ema.averages["w"][0].item() == pytest.approx(2 - 0.999**1000, abs=1e-3)
    ema.apply()
    assert weight.dtype == torch.bfloat16
