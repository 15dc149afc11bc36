"""What is said about a Ray that cannot be joined, and a service that does not start."""

import socket
import threading
from types import SimpleNamespace

import pytest

from mllm_npu.errors import ServingError

clusters = pytest.importorskip("mllm_npu.serve.ray_cluster", exc_type=ImportError)


def app(status, **messages):
    def told(message):
        return SimpleNamespace(message=message, status=SimpleNamespace(value="UPDATING"))

    return SimpleNamespace(
        status=SimpleNamespace(value=status),
        message="Deploying.",
        deployments={name: told(message) for name, message in messages.items()},
    )


TRACE = """Replica failed: Traceback (most recent call last):
  File "worker.py", line 7, in load
mllm_npu.errors.ConfigError: first, where it began

During handling of the above exception
ray.exceptions.RayTaskError(ConfigError): ...
mllm_npu.errors.ConfigError: there is no such model. Train one.
"""


def test_the_refusal_itself_is_told():
    said = clusters.explain_failure(app("DEPLOY_FAILED", front="", digits=TRACE))
    assert said == "digits: ConfigError: there is no such model. Train one."
    said = clusters.explain_failure(app("DEPLOY_FAILED", front=TRACE))
    assert said == "ConfigError: there is no such model. Train one."


def test_what_ray_says_is_told_where_nothing_better_is():
    waits = "1 replica waits for a device."
    assert clusters.explain_failure(app("DEPLOYING", digits=waits)) == f"digits: {waits}"
    assert clusters.explain_failure(app("DEPLOYING")) == "Deploying."
    assert "nothing" in clusters.explain_failure(None)


@pytest.fixture
def cluster(monkeypatch):
    """One that is joined already; ``told`` is what Serve says, one after another."""
    made = object.__new__(clusters.RayCluster)
    made.told = []
    monkeypatch.setattr(
        clusters, "_app", lambda: made.told.pop(0) if len(made.told) > 1 else made.told[0]
    )
    monkeypatch.setattr(clusters, "LOOK_SECONDS", 0.01)
    return made


def wait(cluster, *, seconds=20, stopping=None):
    return cluster.wait(
        seconds=seconds, stopping=stopping or threading.Event(), progress=lambda *_: None
    )


def test_it_waits_until_all_runs(cluster):
    cluster.told = [None, app("DEPLOYING", digits=""), app("RUNNING", digits="")]
    assert wait(cluster)


def test_a_failure_ends_the_waiting(cluster):
    cluster.told = [app("DEPLOYING", digits=""), app("DEPLOY_FAILED", digits=TRACE)]
    with pytest.raises(ServingError, match=r"not started. digits: ConfigError: there is no such"):
        wait(cluster)


def test_it_does_not_wait_for_ever(cluster):
    cluster.told = [app("DEPLOYING", digits="Waits for a device.")]
    with pytest.raises(ServingError, match=r"within 0.05 seconds: digits: Waits .* --max-surge 0"):
        wait(cluster, seconds=0.05)
    stopping = threading.Event()
    stopping.set()
    assert not wait(cluster, stopping=stopping)


def test_a_service_is_taken_away_once_it_is_gone(cluster, monkeypatch):
    asked = []
    monkeypatch.setattr(clusters.serve, "delete", lambda name, _blocking: asked.append(name))
    cluster.told = [app("RUNNING"), app("DELETING"), None]
    assert cluster.delete(seconds=20, hurry=threading.Event())
    assert asked == ["mllm-npu"]
    assert not cluster.delete(seconds=20, hurry=threading.Event())


def test_a_person_in_a_hurry_waits_no_longer(cluster, monkeypatch):
    monkeypatch.setattr(clusters.serve, "delete", lambda name, _blocking: None)
    cluster.told = [app("DELETING")]
    hurry = threading.Event()
    hurry.set()
    assert cluster.delete(seconds=20, hurry=hurry)


def test_room_is_what_is_free(cluster, monkeypatch):
    free = SimpleNamespace(available_resources=lambda: {"CPU": 1.0})
    monkeypatch.setattr(clusters, "_ray", free)
    assert cluster.has_room({"CPU": 1.0})
    assert not cluster.has_room({"CPU": 1.0, "GPU": 1.0})


def test_an_address_where_nothing_listens_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        clusters.check_reachable(f"127.0.0.1:{port}")
    with pytest.raises(ServingError, match="ray start --head"):
        clusters.RayCluster(f"127.0.0.1:{port}", num_cpus=0)
    clusters.check_reachable("auto")
