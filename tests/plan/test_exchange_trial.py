import pytest

from mllm_npu.distributed.local_ranks import Outcome
from mllm_npu.errors import ConfigError
from mllm_npu.plan import exchange_trial
from mllm_npu.plan.exchange_trial import SIZES, measure_exchanges, seconds_of


def test_sizes_between_are_on_the_line_and_those_beyond_on_its_end():
    times = [(100, 1.0), (200, 2.0), (1000, 4.0)]
    assert seconds_of(times, 1) == 1.0
    assert seconds_of(times, 150) == pytest.approx(1.5)
    assert seconds_of(times, 600) == pytest.approx(3.0)
    assert seconds_of(times, 1400) == pytest.approx(5.0)


def test_a_noisy_end_never_goes_below_the_smallest():
    assert seconds_of([(100, 1.0), (200, 0.5)], 10_000) == 1.0


def test_a_rank_that_fails_is_said(monkeypatch):
    lost = Outcome(output="", code=None, complaints=("rank 1 was ended by SIGKILL",))
    monkeypatch.setattr(exchange_trial, "run_local_ranks", lambda *_, **__: lost)
    with pytest.raises(ConfigError, match=r"rank 1 was ended by SIGKILL.*node_size=1"):
        measure_exchanges(2)


@pytest.mark.slow
def test_two_processes_exchange():
    found = measure_exchanges(2)
    assert set(found.exchanges) == {"all_gather", "reduce_scatter", "all_reduce"}
    for times in found.exchanges.values():
        assert [size for size, _ in times] == list(SIZES)
        assert times[-1][1] > times[0][1] > 0
    assert 0 <= found.sharding < 0.1
    assert 0 <= found.update < 0.1
