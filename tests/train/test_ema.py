import pytest
import torch
from pretended import pretended_ranks
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mllm_npu.errors import ConfigError
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
    """A checkpoint fills the averages in place and sets the number of updates."""
    weight = nn.Parameter(torch.ones(2))
    ema = Ema({"weight": weight}, decay=0.5)
    ema.averages["weight"].fill_(3.0)
    ema.num_updates = 100
    ema.update()
    assert ema.averages["weight"].tolist() == [2.0, 2.0]
    assert ema.num_updates == 101


def test_averages_are_copies_and_keep_no_graph():
    weight = nn.Parameter(torch.ones(2))
    ema = Ema({"weight": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(5.0)
    assert ema.averages["weight"].tolist() == [1.0, 1.0]
    (weight * 2).sum().backward()
    ema.update()
    assert not ema.averages["weight"].requires_grad


def test_each_rank_averages_the_rows_it_holds():
    """The place of a sharded average is that of its weight; ranks are simulated."""
    with pretended_ranks(1, 4) as ranks:
        rows = torch.arange(8.0).view(8, 1)
        whole = nn.Parameter(distribute_tensor(rows, ranks, [Shard(0)], src_data_rank=None))
        ema = Ema({"weight": whole}, decay=0.5)
        own = whole.detach().to_local()
        before = own.clone()
        own.add_(10.0)
        ema.update()
        average = ema.averages["weight"]
        assert isinstance(average, DTensor)
        assert average.placements == whole.placements
        # 1 - min(0.5, 1 / 10) of the way.
        torch.testing.assert_close(average.to_local(), before + 9.0)


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
