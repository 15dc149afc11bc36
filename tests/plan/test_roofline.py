import pytest

from mllm_npu.plan.roofline import Cost, Roofline


@pytest.fixture
def rates(make_cluster):
    return Roofline(cluster=make_cluster(accelerator={"host_us": 3.0}), stride=8)


def test_a_large_product_is_bound_by_flops(rates, make_operation):
    """10^12 at half of 100 TFLOPS take 20 ms; 10^9 bytes at half of 1 TB/s only 2 ms."""
    cost = rates.operation(make_operation())
    assert cost == Cost(compute=pytest.approx(0.02), launch=pytest.approx(4e-6))
    assert cost.seconds == pytest.approx(0.020004)


def test_a_thin_product_is_bound_by_memory(rates, make_operation):
    cost = rates.operation(make_operation(flops=1e9))
    assert cost == Cost(memory=pytest.approx(0.002), launch=pytest.approx(4e-6))


def test_what_computes_little_only_moves_bytes(rates, make_operation):
    cost = rates.operation(make_operation(name="aten.add", flops=0.0, bytes=5 * 10**8))
    assert cost == Cost(memory=pytest.approx(0.001), launch=pytest.approx(2e-6))


def test_full_precision_is_slower(rates, make_operation):
    half = rates.operation(make_operation())
    full = rates.operation(make_operation(dtype="float32"))
    assert full.compute == pytest.approx(2 * half.compute)


def test_the_host_and_the_links_are_those_of_the_card(rates, make_exchange):
    assert rates.host_seconds == pytest.approx(3e-6)
    assert rates.exchange(make_exchange()) == pytest.approx(7 / 50 + 7e-6)
    assert rates.overlaps
    assert rates.slowdown == 1
