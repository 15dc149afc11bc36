"""``serve --ray`` as far as it goes without a Ray; ``tests/serve/test_ray_live.py`` goes on."""

import json
import os
import signal
import socket
import sys

import pytest
import yaml

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.commands import serving_ray
from mllm_npu.config import load_config
from mllm_npu.errors import ServingError
from mllm_npu.model_folder import save_model_folder
from mllm_npu.serve.ray_options import RayPlan

pytest.importorskip("ray.serve", reason="ray is not installed: pip install 'mllm-npu[ray]'")

KEY = "a-key-of-the-tests"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def variables(monkeypatch, tmp_path):
    """What the command sets, signals too, ends with the test."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before, handlers = dict(os.environ), [signal.getsignal(number) for number in SIGNALS]
    yield
    os.environ.clear()
    os.environ.update(before)
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    config = load_config("training", [f"world_dir={world}", "name=tiny"])
    save_model_folder(build_model(config), config, folder)
    return folder


def printed(capsys, *typed):
    assert main(["serve", "--ray", "--print-config", *map(str, typed)]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def plan_of(config):
    return RayPlan.from_plain(config["applications"][0]["args"])


def test_the_configuration_names_models_by_their_own_names(capsys, model):
    config = printed(capsys, model, "--host", "0.0.0.0", "--port", "8000")
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}
    assert plan_of(config) == RayPlan(models={"tiny": str(model)})


def test_names_and_numbers_are_taken_as_typed(capsys, model, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    typed = ["--min-replicas", "0", "--max-replicas", "4", "--replica-cpus", "2", "--drain", "9"]
    typed += ["--target-requests", "3", "--upscale-delay", "1", "--downscale-delay", "2"]
    typed += ["--max-surge", "0", "--device", "cpu", "--api-keys", keys]
    config = printed(capsys, f"a={model}", "b=/only/there", *typed)
    assert plan_of(config) == RayPlan(
        models={"a": str(model), "b": "/only/there"},
        device="cpu",
        min_replicas=0,
        max_replicas=4,
        replica_cpus=2.0,
        target_requests=3.0,
        upscale_seconds=1.0,
        downscale_seconds=2.0,
        surge_percent=0,
        drain_seconds=9.0,
        api_keys=str(keys),
        needs_keys=True,
    )
    assert KEY not in str(config)


def test_workers_are_the_least_number_of_replicas(capsys, model):
    plan = plan_of(printed(capsys, model, "--workers", "3"))
    assert (plan.min_replicas, plan.max_replicas) == (3, 3)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["a={model}", "a={model}"], "both to be called 'a'"),
        (["{model}/nowhere"], "there is no such folder"),
        (["{model}", "--dispatch", "lottery"], "leave it out"),
        (["{model}", "--min-replicas", "3", "--max-replicas", "2"], "3 to 2 replicas"),
        (["front={model}"], "NAME=FOLDER"),
        (["{model}", "--device", "cpu:1"], "knows"),
        (["--stop"], "--ray-address auto"),
        (["{model}", "--quantize", "int8"], "keep the weights as they are"),
        (["{model}", "--ray-address", "127.0.0.1:{port}"], "ray start --head"),
    ],
)
def test_what_cannot_be_is_refused(capsys, model, typed, words):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    typed = [word.format(model=model, port=port) for word in typed]
    assert main(["serve", "--ray", *typed]) == 2
    assert words in capsys.readouterr().err


def test_a_taken_port_is_told_before_ray_starts(capsys, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--ray", str(model), "--port", str(port)]) == 2
    assert f"Port {port} of 127.0.0.1 was asked for" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(capsys, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith("mllm_npu.serve.ray_cluster")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["serve", "--ray", str(model)]) == 2
    assert "Install it: pip install 'mllm-npu[ray]'" in capsys.readouterr().err


class Cluster:
    """A Ray that runs and does as ``script`` says."""

    address, logs, is_own = "head:6379", "/logs", False

    def __init__(self, address, *, num_cpus):
        self.did = self.script.setdefault("did", [f"join {address}"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.did.append("leave")

    def resources(self):
        return {"CPU": 4.0}

    def has_room(self, needed):
        return self.script.get("room", True)

    def deploy(self, application, *, host, port):
        self.did.append(f"deploy at {host}:{port}")
        return "http://127.0.0.1:8000"

    def wait(self, **_):
        if "failure" in self.script:
            raise ServingError(self.script["failure"])
        return self.script.get("ready", True)

    def delete(self, *, seconds, hurry):
        return self.script.get("there", True)


@pytest.fixture
def script(monkeypatch):
    """What the Ray that is joined does, and under ``did`` what was done to it."""
    plans = []

    def build(plan, *, platform):
        plans.append((plan, platform.name))

    monkeypatch.setattr("mllm_npu.serve.ray_cluster.RayCluster", Cluster)
    monkeypatch.setattr("mllm_npu.serve.ray_app.build_application", build)
    monkeypatch.setattr(Cluster, "script", {"plans": plans}, raising=False)
    return Cluster.script


def test_a_ray_that_runs_gets_the_service_and_keeps_it(capsys, model, script):
    typed = ["serve", str(model), "--ray", "--ray-address", "auto", "--port", "8000"]
    assert main(typed) == 0
    assert script["did"] == ["join auto", "deploy at 127.0.0.1:8000", "leave"]
    ((plan, platform),) = script["plans"]
    assert (plan.surge_percent, platform) == (100, "cpu")
    said = capsys.readouterr().err
    assert "OpenAI's API   http://127.0.0.1:8000/v1" in said
    assert "stop it with: mllm-npu serve --ray --ray-address head:6379 --stop" in said
    assert main([*typed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["controller"] == "http://127.0.0.1:8000"


def test_where_nothing_is_free_an_old_replica_stops_first(capsys, model, script):
    script["room"] = False
    typed = ["serve", str(model), "--ray", "--ray-address", "auto"]
    assert main(typed) == 0
    assert "an update stops an old one first" in capsys.readouterr().err
    assert main([*typed, "--max-surge", "50"]) == 0
    assert [plan.surge_percent for plan, _ in script["plans"]] == [0, 50]


def test_an_update_that_fails_or_is_not_waited_for_is_told(capsys, model, script):
    typed = ["serve", str(model), "--ray", "--ray-address", "auto"]
    script["ready"] = False
    assert main(typed) == 0
    assert "Ray goes on with it" in capsys.readouterr().err
    script["failure"] = "The service was not started."
    assert main(typed) == 2
    assert "not started. What ran there before runs on." in capsys.readouterr().err


@pytest.mark.parametrize(("there", "words"), [(True, "stopped"), (False, "no such service")])
def test_a_service_is_taken_from_a_ray_that_runs(capsys, script, there, words):
    script["there"] = there
    assert main(["serve", "--ray", "--ray-address", "auto", "--stop"]) == 0
    assert words in capsys.readouterr().err
    assert script["did"] == ["join auto", "leave"]


@pytest.mark.parametrize(
    ("address", "is_near"),
    [(None, True), ("auto", True), ("127.0.0.1:6379", True), ("head.example:6379", False)],
)
def test_a_ray_of_this_machine_is_looked_for_on_loopback(address, is_near):
    serving_ray.set_environment(address)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in os.environ) is is_near


def test_a_token_is_shown_where_there_is_one(tmp_path, monkeypatch):
    serving_ray.set_environment("head.example:6379")
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    serving_ray.set_environment("head.example:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    serving_ray.set_environment("head.example:6379")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    serving_ray.set_environment(None)
    assert os.environ["RAY_AUTH_MODE"] == "token"
