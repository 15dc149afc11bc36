from mllm_npu.inference.live_stats import Meter


def test_only_the_last_steps_are_remembered_one_by_one():
    meter = Meter()
    for number in range(1000):
        meter.count_step(number)
    assert meter.counts["steps"] == 1000
    assert len(meter.batch_sizes) == 512
    assert meter.batch_sizes[-1] == 999
