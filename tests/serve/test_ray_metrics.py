"""Figures copied to gauges that play those of Ray."""

import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

ray_metrics = pytest.importorskip("mllm_npu.serve.ray_metrics", exc_type=ImportError)


class PlayGauge:
    def __init__(self, name, description, tag_keys):
        assert name not in self.made, "made twice"
        self.description, self.tag_keys, self.values = description, tag_keys, {}
        self.made[name] = self

    def set(self, value, tags):
        assert set(tags) == set(self.tag_keys)
        self.values[tuple(tags.values())] = value


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(ray_metrics, "Gauge", PlayGauge)
    monkeypatch.setattr(PlayGauge, "made", {}, raising=False)
    return PlayGauge.made


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Counter("asked", "Requests.", ("path", "status"), registry=registry).labels("/a", "200").inc(3)
    Gauge("waiting", "Waits.", registry=registry).set(2)
    Histogram("seconds", "Time.", buckets=(1, 5), registry=registry).observe(3)
    return registry


def test_every_figure_keeps_its_name_and_labels(made, registry):
    copy = ray_metrics.MetricsCopy(registry, seconds=60)
    copy.copy()
    copy.copy()
    copy.stop()
    assert made["asked_total"].values == {("/a", "200"): 3}
    assert made["asked_total"].tag_keys == ("path", "status")
    assert made["waiting"].description == "Waits."
    assert made["seconds_bucket"].values == {("1.0",): 0, ("5.0",): 1, ("+Inf",): 1}
    assert made["seconds_count"].values == {(): 1}
    assert not any(name.endswith("_created") for name in made)


def test_they_are_copied_again_and_again_until_it_stops(made, registry):
    copy = ray_metrics.MetricsCopy(registry, seconds=0.01)
    deadline = time.monotonic() + 20
    while "waiting" not in made:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    copy.stop()
