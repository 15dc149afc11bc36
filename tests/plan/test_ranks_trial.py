import pytest

from mllm_npu.distributed.local_ranks import Outcome
from mllm_npu.errors import ConfigError
from mllm_npu.plan import ranks_trial
from mllm_npu.plan.exchange_trial import SIZES as EXCHANGES
from mllm_npu.plan.ranks_trial import KINDS, try_ranks
from mllm_npu.plan.trial_model import PHASES
from mllm_npu.plan.trial_step import SIZES


def test_a_rank_that_fails_is_said(monkeypatch):
    lost = Outcome(output="", code=None, complaints=("rank 1 was ended by SIGKILL",))
    monkeypatch.setattr(ranks_trial, "run_local_ranks", lambda *_, **__: lost)
    with pytest.raises(ConfigError, match=r"rank 1 was ended by SIGKILL.*node_size=1"):
        try_ranks(2, threads=1)


@pytest.mark.slow
def test_two_processes_exchange_and_train():
    found = try_ranks(2, threads=1)
    assert 1e-4 < found.usual < 5
    assert set(found.exchanges) == {"all_gather", "reduce_scatter", "all_reduce"}
    for times in found.exchanges.values():
        assert [size for size, _ in times] == list(EXCHANGES)
        assert times[-1][1] > times[0][1] > 0
    assert len(found.steps) == len(SIZES)
    for size, steps in zip(SIZES, found.steps, strict=True):
        assert tuple(steps) == KINDS
        alone, sharded = steps["single"], steps["fsdp2"]
        assert alone.exchanges == []
        assert sum(sharded.seconds[phase] for phase in PHASES) > sum(
            alone.seconds[phase] for phase in PHASES
        )
        # Each block is gathered twice, what is around them once; all are scattered once.
        calls = {"all_gather": 0, "reduce_scatter": 0, "all_reduce": 0}
        for exchange in sharded.exchanges:
            calls[exchange.kind] += exchange.calls
        assert calls["all_gather"] == 2 * size.blocks + 1
        assert calls["reduce_scatter"] == size.blocks + 1
        assert {one.ranks for one in sharded.exchanges} == {2}
        products = [one for one in alone.operations if one.name == "aten.mm"]
        assert all(isinstance(one.shapes[0], tuple) for one in products)
