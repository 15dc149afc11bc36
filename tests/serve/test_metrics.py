"""Figures for Prometheus."""

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from mllm_npu.serve.metrics import SPEED_SECONDS, Metrics


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def values(metrics):
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_page_is_read_as_prometheus_reads_it():
    metrics = Metrics(stats=lambda: SimpleNamespace(queued=4, running=2), clock=Clock())
    metrics.requests.labels("/health", "200").inc()
    metrics.errors.labels("busy_error").inc()
    metrics.first_event.observe(0.2)
    metrics.picture_seconds.observe(3)
    metrics.add_reply(num_prompt_tokens=10, num_new_tokens=4, seconds=2)
    found = values(metrics)
    assert found["mllm_npu_requests_total", "/health", "200"] == 1
    assert found["mllm_npu_errors_total", "busy_error"] == 1
    assert found["mllm_npu_queued",] == 4
    assert found["mllm_npu_running",] == 2
    assert found["mllm_npu_prompt_tokens_total",] == 10
    assert found["mllm_npu_new_tokens_total",] == 4
    assert found["mllm_npu_time_to_first_token_seconds_bucket", "0.25"] == 1
    assert found["mllm_npu_picture_seconds_sum",] == 3


def test_the_speed_is_that_of_late():
    clock = Clock()
    metrics = Metrics(stats=lambda: SimpleNamespace(queued=0, running=0), clock=clock)
    for _ in range(60):
        metrics.add_piece()
    assert metrics.tokens_per_second() == 60 / SPEED_SECONDS
    clock.now += SPEED_SECONDS + 1
    assert metrics.tokens_per_second() == 0


def test_two_workers_in_one_process_count_apart():
    one, other = (Metrics(stats=lambda: SimpleNamespace(queued=0, running=0)) for _ in range(2))
    one.pictures.inc()
    assert values(one)["mllm_npu_pictures_total",] == 1
    assert values(other)["mllm_npu_pictures_total",] == 0
