"""The plan of a service on Ray, and what it asks of Ray."""

from pathlib import Path

import pytest
import yaml

from mllm_npu.device.platform import PLATFORMS, platform_named
from mllm_npu.errors import ConfigError
from mllm_npu.serve.ray_options import RayPlan, actor_options, demand, look_back, split_name
from mllm_npu.serve.worker import parse

CPU = platform_named("cpu")


def plan(**more):
    return RayPlan(models={"digits": "/runs/digits"}, **more)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("npu", {"num_cpus": 2.0, "resources": {"NPU": 1}}),
        ("cuda", {"num_cpus": 2.0, "num_gpus": 1}),
        ("cpu", {"num_cpus": 2.0}),
    ],
)
def test_a_replica_takes_one_device(name, options):
    assert actor_options(platform_named(name), num_cpus=2.0) == options


def test_what_it_takes_is_a_table_too():
    tables = [demand(platform, num_cpus=1.0) for platform in PLATFORMS]
    assert tables == [{"CPU": 1.0, "NPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0}]


def test_numbers_follow_from_those_of_an_engine():
    options = plan(worker=("--slots", "4", "--max-queue", "9"), max_replicas=3).model_options(CPU)
    assert options["max_ongoing_requests"] == 8
    assert options["max_queued_requests"] == 9
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 3)
    assert scaling["target_ongoing_requests"] == 4.0
    given = plan(target_requests=1.5).model_options(CPU)
    assert given["autoscaling_config"]["target_ongoing_requests"] == 1.5


def test_a_replica_drains_as_long_as_asked():
    options = plan(drain_seconds=7.0)
    for each in (options.model_options(CPU), options.front_options()):
        assert each["graceful_shutdown_timeout_s"] == 7.0
        assert each["graceful_shutdown_wait_loop_s"] <= 7.0


def test_the_front_keeps_no_device():
    options = plan(max_replicas=5).front_options()
    assert options["ray_actor_options"] == {"num_cpus": 0}
    assert options["autoscaling_config"]["max_replicas"] == 5


def test_ray_takes_the_options():
    serve = pytest.importorskip("ray.serve")

    class Held:
        pass

    for platform in PLATFORMS:
        options = plan().model_options(platform)
        deployment = serve.deployment(Held).options(name="digits", **options)
        assert deployment.max_ongoing_requests == options["max_ongoing_requests"]
    assert serve.deployment(Held).options(**plan().front_options()).name == "front"


def test_a_worker_understands_its_words():
    words = plan(worker=("--slots", "4")).words("digits", "cpu")
    asked = parse(words)
    assert (asked.model, asked.name, asked.device) == (Path("/runs/digits"), "digits", "cpu")
    assert asked.slots == 4
    odd = RayPlan(models={"-a": "/-b"}).words("-a", "cpu")
    assert parse(odd).name == "-a"


@pytest.mark.parametrize(("seconds", "period"), [(0, 10.5), (20, 20), (600, 30)])
def test_load_is_averaged_over_some_time(seconds, period):
    assert look_back(seconds) == period


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"models": {}}, "No model"),
        ({"models": {"a": "/a"}, "min_replicas": 3}, "3 to 1 replicas"),
        ({"models": {"a": "/a"}, "min_replicas": 0, "max_replicas": 0}, "--max-replicas"),
        ({"models": {"front": "/a"}}, "NAME=FOLDER"),
        ({"models": {"a#b": "/a"}}, "NAME=FOLDER"),
        ({"models": {"a": "/a"}, "worker": ("--slot-machines", "3")}, "worker --help"),
    ],
)
def test_what_cannot_be_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        RayPlan(**values)


def test_it_goes_through_a_file_unchanged():
    asked = plan(worker=("--slots", "4"), api_keys="/keys", needs_keys=True, surge_percent=0)
    assert RayPlan.from_plain(yaml.safe_load(yaml.safe_dump(asked.to_plain()))) == asked


@pytest.mark.parametrize("values", [{}, {"models": ["a"]}, {"models": {"a": "/a"}, "slot": 3}])
def test_a_file_with_other_names_is_refused(values):
    with pytest.raises(ConfigError, match="models is a table"):
        RayPlan.from_plain(values)


def test_a_name_may_stand_before_a_folder(tmp_path):
    assert split_name("runs/digits") == (None, Path("runs/digits"))
    assert split_name("seven=runs/digits") == ("seven", Path("runs/digits"))
    assert split_name("runs/lr=3/digits") == (None, Path("runs/lr=3/digits"))
    (tmp_path / "a=b").mkdir()
    assert split_name(str(tmp_path / "a=b")) == (None, tmp_path / "a=b")
