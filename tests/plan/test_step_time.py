import pytest

from mllm_npu.plan.roofline import Cost
from mllm_npu.plan.step_time import Surroundings, main_dtype, time_step

AROUND = Surroundings(
    peak_flops=100e12, host_link=10e9, host_memory=5e9, tile_rate=100.0, loads_ahead=True
)


class Rates:
    """One second for each 10^12 FLOPs, else a second for each 10^9 bytes."""

    host_seconds = 0.0
    overlaps = True
    slowdown = 1.0

    def operation(self, operation):
        if operation.flops:
            return Cost(compute=operation.flops / 1e12, launch=0.5)
        return Cost(memory=operation.bytes / 1e9)

    def exchange(self, exchange):
        return exchange.bytes / 1e9


@pytest.fixture
def rates():
    return Rates()


def test_parts_add_up(rates, make_traced, make_operation):
    step = make_traced(
        operations=(
            make_operation(calls=4),
            make_operation(name="aten.add", flops=0.0, calls=2, phase="backward"),
            make_operation(name="adam", flops=0.0, phase="optimizer", part="optimizer"),
        )
    )
    found = time_step(step, rates, AROUND)
    assert found.parts == {
        "compute": 4.0, "memory": 2.0, "launch": 2.0, "host": 0.0, "exchange": 0.0,
        "optimizer": 1.0, "data": 0.0,
    }  # fmt: skip
    assert found.seconds == 9.0
    assert found.limiting == "compute"
    assert found.tokens_per_second == pytest.approx(4096 * 8 / 9)
    assert found.tokens_per_second_rank == pytest.approx(4096 / 9)
    assert found.mfu == pytest.approx(3e12 / 9 / 100e12)


def test_exchanges_hide_behind_the_blocks_before_them(rates, make_traced, make_operation,
                                                      make_exchange):  # fmt: skip
    """Four gathers of 1 s beside 4 x 1.5 s of computation: only the first is waited for."""
    step = make_traced(
        operations=(make_operation(calls=4),),
        exchanges=(make_exchange(bytes=10**9, calls=4),),
    )
    found = time_step(step, rates, AROUND)
    assert found.parts["exchange"] == 1.0
    assert found.hidden_exchange == 3.0
    assert found.seconds == 7.0


def test_what_is_longer_than_the_computation_is_waited_for(rates, make_traced, make_operation,
                                                           make_exchange):  # fmt: skip
    step = make_traced(
        operations=(make_operation(calls=4),),
        exchanges=(make_exchange(bytes=4 * 10**9, calls=4),),
    )
    found = time_step(step, rates, AROUND)
    # The first takes 4 s; of the other 12 s, 6 are hidden.
    assert found.parts["exchange"] == 10.0
    assert found.limiting == "exchange"


def test_every_micro_batch_waits_for_its_first_exchange(rates, make_traced, make_operation,
                                                        make_exchange):  # fmt: skip
    step = make_traced(
        micro_batches=2,
        operations=(make_operation(calls=8),),
        exchanges=(make_exchange(bytes=10**9, calls=8),),
    )
    assert time_step(step, rates, AROUND).parts["exchange"] == 2.0


def test_exchanges_inside_attention_and_in_the_update_hide_behind_nothing(
    rates, make_traced, make_operation, make_exchange
):
    step = make_traced(
        operations=(make_operation(calls=20),),
        exchanges=(
            make_exchange(kind="all_to_all", axis="sequence", bytes=10**9, calls=3),
            make_exchange(kind="all_reduce", axis="world", phase="optimizer", part="optimizer",
                          bytes=10**9, calls=2),
        ),
    )  # fmt: skip
    assert time_step(step, rates, AROUND).parts["exchange"] == 5.0


def test_what_surrounds_the_blocks_is_not_hidden(rates, make_traced, make_operation, make_exchange):
    step = make_traced(
        operations=(make_operation(calls=9),),
        exchanges=(make_exchange(part="around", bytes=10**9, calls=1),),
    )
    found = time_step(step, rates, AROUND)
    assert found.parts["exchange"] == 1.0
    assert [(segment.part, segment.busy) for segment in found.segments] == [
        ("language_model", 13.5),
        ("around", 0.0),
    ]


def test_one_stream_hides_nothing(rates, make_traced, make_operation, make_exchange):
    rates.overlaps = False
    step = make_traced(
        operations=(make_operation(calls=4),),
        exchanges=(make_exchange(bytes=10**9, calls=4),),
    )
    assert time_step(step, rates, AROUND).parts["exchange"] == 4.0


def test_ranks_that_share_cores_compute_slower(rates, make_traced):
    rates.slowdown = 2.0
    found = time_step(make_traced(), rates, AROUND)
    assert found.parts["compute"] == 2.0
    assert found.seconds == 3.0


def test_short_operations_wait_for_the_host(rates, make_traced, make_operation):
    """Ten operations of 0.1 s that the host needs 1 s each to issue."""
    rates.host_seconds = 1.0
    step = make_traced(operations=(make_operation(flops=0.0, bytes=10**8, calls=10),))
    found = time_step(step, rates, AROUND)
    assert found.parts["host"] == pytest.approx(9.0)
    assert found.seconds == pytest.approx(10.0)
    assert found.limiting == "host"


def test_a_slow_loader_is_waited_for(rates, make_traced):
    """150 tiles at 100 a second beside a step of 1.5 s, or before it."""
    assert time_step(make_traced(tiles=150), rates, AROUND).parts["data"] == 0.0
    assert time_step(make_traced(tiles=250), rates, AROUND).parts["data"] == pytest.approx(1.0)
    alone = Surroundings(
        peak_flops=1e12, host_link=1e9, host_memory=1e9, tile_rate=100.0, loads_ahead=False
    )
    assert time_step(make_traced(tiles=150), rates, alone).parts["data"] == pytest.approx(1.5)


def test_offload_copies_and_updates_on_the_host(rates, make_traced, make_operation):
    step = make_traced(
        host_bytes=30 * 10**9,
        operations=(
            make_operation(),
            make_operation(flops=0.0, bytes=10**10, phase="optimizer", part="optimizer"),
        ),
    )
    found = time_step(step, rates, AROUND)
    # 10 GB of parameters twice and of gradients once at 10 GB/s; 10 GB moved at 5 GB/s.
    assert found.parts["offload"] == pytest.approx(3.0)
    assert found.parts["optimizer"] == pytest.approx(2.0)


def test_ranks_of_one_sequence_share_its_tokens(rates, make_traced):
    found = time_step(make_traced(data_ranks=4), rates, AROUND)
    assert found.tokens_per_second == pytest.approx(4096 * 4 / 1.5)
    assert found.tokens_per_second_rank == pytest.approx(4096 * 4 / 8 / 1.5)


def test_the_main_dtype_is_that_of_most_flops(make_traced, make_operation):
    step = make_traced(
        operations=(make_operation(calls=5), make_operation(dtype="float32", flops=2e12))
    )
    assert main_dtype(step) == "bfloat16"
    assert main_dtype(make_traced(operations=())) == "float32"
