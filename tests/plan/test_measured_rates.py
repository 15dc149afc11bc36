from contextlib import nullcontext

import pytest
import torch

from mllm_npu.device.process import usable_cores
from mllm_npu.plan import measured_rates
from mllm_npu.plan.calibration import Calibration
from mllm_npu.plan.measured_rates import MeasuredRates
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.surplus import Sharding, Surplus

CPU = torch.device("cpu")
SQUARE = ((64, 64), (64, 64), (64, 64))


def calibration(**changes):
    values = {
        "device": "here",
        "threads": 1,
        "gemm": {"float32": 1e9},
        "bandwidth": 1e9,
        "launch": 1e-6,
        "surplus": Surplus(
            each={"forward": 1.0, "backward": 2.0, "optimizer": 3.0},
            byte={"forward": 0.5, "backward": 0.0, "optimizer": 0.0},
        ),
        "usual": 1.0,
        "exchanges": {"all_gather": [(10, 1.0), (20, 2.0)]},
        "sharding": Sharding(each=0.25, byte=0.01, update=0.125),
    }
    return Calibration(**{**values, **changes})


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Ranks for which neighbours were asked, in place of starting them."""
    beside = []
    monkeypatch.setattr(SteadyClock, "_work", lambda self: 1.0)
    monkeypatch.setattr(
        measured_rates, "neighbours", lambda ranks: nullcontext(beside.append(ranks))
    )
    return beside


@pytest.fixture
def rates(make_traced, make_cluster):
    def make(*operations, exchanges=(), ranks=1, device=CPU, **changes):
        return MeasuredRates(
            traced=make_traced(operations=operations, exchanges=exchanges),
            calibration=calibration(**changes),
            device=device,
            cluster=make_cluster(node_size=ranks),
            stride=1,
        )

    return make


def test_an_operation_is_made_and_its_surroundings_added(rates, make_operation):
    one = make_operation(name="aten.mm", shapes=SQUARE, dtype="float32", bytes=10, flops=5e5)
    found = rates(one)
    cost = found.operation(one)
    assert found.made == 1
    assert cost.launch == 1.0
    # Half a second for each of ten bytes, and the product itself.
    assert 5.0 < cost.compute < 5.01
    assert cost.memory == 0


def test_equal_operations_are_made_once(rates, make_operation):
    shape = {"name": "aten.mm", "shapes": SQUARE, "dtype": "float32", "flops": 5e5, "bytes": 10}
    one, later = make_operation(**shape), make_operation(**shape, phase="backward")
    found = rates(one, later)
    assert found.made == 1
    assert found.operation(later).launch == 2.0


def test_what_cannot_be_made_goes_by_its_class(rates, make_operation):
    strange = make_operation(name="aten.unheard_of", flops=0.0, bytes=10**9, phase="backward")
    found = rates(strange)
    assert found.made == 0
    assert found.operation(strange).memory == pytest.approx(1.0)


def test_what_would_take_long_is_not_made(rates, make_operation):
    large = make_operation(
        name="aten.mm", shapes=((9, 9),) * 3, dtype="float32", flops=2e9, bytes=0
    )
    found = rates(large)
    assert found.made == 0
    assert found.operation(large).compute == pytest.approx(2.0)


def test_exchanges_are_those_measured(rates, make_operation, make_exchange):
    found = rates(make_operation(shapes=()))
    assert found.exchange(make_exchange(bytes=15)) == pytest.approx(1.5 + 0.25 + 15 * 0.01)
    assert found.exchange(make_exchange(bytes=15, axis="world")) == pytest.approx(1.5)
    assert found.exchange(make_exchange(bytes=10, kind="all_to_all", axis="sequence")) == 1.0


def test_unmeasured_ones_go_by_the_card(make_traced, make_cluster, make_exchange):
    found = MeasuredRates(
        traced=make_traced(operations=()),
        calibration=calibration(exchanges={}),
        device=CPU,
        cluster=make_cluster(),
        stride=8,
    )
    assert found.exchange(make_exchange()) == pytest.approx(7 / 50 + 7e-6)


def test_operations_are_made_beside_the_other_ranks(rates, make_operation, beside):
    rates(make_operation(shapes=()), ranks=3)
    assert beside == [3]


def test_processes_share_the_cores(rates, make_operation, make_exchange):
    crowd = 4 * usable_cores()
    found = rates(make_operation(shapes=()), ranks=crowd)
    assert found.slowdown == pytest.approx(4.0)
    assert found.exchange(make_exchange(bytes=10, axis="world")) == pytest.approx(4.0)
    assert rates(make_operation(shapes=())).slowdown == 1.0
    assert not found.overlaps


def test_a_sharded_update_costs_more_for_each_parameter(rates, make_operation, make_exchange):
    update = make_operation(
        name="aten._fused_adamw_", shapes=((4,),) * 8 + ((), ()), dtype="float32", flops=0.0,
        bytes=0, phase="optimizer", part="optimizer",
    )  # fmt: skip
    alone = rates(update).operation(update)
    sharded = rates(update, exchanges=(make_exchange(),)).operation(update)
    assert alone.launch == 3.0
    assert sharded.launch == pytest.approx(3.0 + 2 * 0.125)
