"""What is counted is on the page, under the names that are promised."""

import pytest

from mllm_npu.serve.controller_metrics import ControllerMetrics
from mllm_npu.serve.forwarding import Ending
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.registry import Registry

URL = "http://127.0.0.1:1"


@pytest.fixture
def registry():
    return Registry()


def lines(metrics):
    page = metrics.page().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in page if not line.startswith("#"))


def test_requests_are_counted_by_ending(registry):
    metrics = ControllerMetrics(registry)
    metrics.tell("/v1/x", Ending.SERVED, 3, 0.3, 0.1)
    metrics.tell("/v1/x", Ending.SERVED, 1, 0.3, 0.1)
    metrics.tell("/v1/x", Ending.NO_WORKER, 0, 0.0, None)
    figures = lines(metrics)
    name = "mllm_npu_controller_requests_total"
    assert figures[f'{name}{{ending="served",path="/v1/x"}}'] == "2.0"
    assert figures[f'{name}{{ending="no_worker",path="/v1/x"}}'] == "1.0"
    assert figures["mllm_npu_controller_retries_total"] == "2.0"
    assert figures["mllm_npu_controller_request_seconds_count"] == "3.0"
    assert figures["mllm_npu_controller_first_byte_seconds_count"] == "2.0"


def test_workers_are_as_they_are_now(registry):
    metrics = ControllerMetrics(registry)
    worker = registry.register(URL, [ModelCard(id="tiny")])
    worker.in_flight = 4
    assert lines(metrics)["mllm_npu_controller_workers"] == "1.0"
    assert lines(metrics)["mllm_npu_controller_in_flight"] == "4.0"
    registry.dismiss(URL)
    assert lines(metrics)["mllm_npu_controller_workers"] == "0.0"
    removed = 'mllm_npu_controller_workers_removed_total{reason="farewell"}'
    assert lines(metrics)[removed] == "1.0"


def test_two_controllers_do_not_share_figures(registry):
    one, other = ControllerMetrics(registry), ControllerMetrics(registry)
    one.tell("/v1/x", Ending.CUT, 1, 0.1, 0.1)
    assert "ending=" not in other.page().decode()
