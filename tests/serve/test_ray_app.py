"""The application as Ray gets it; ``test_ray_live.py`` runs it."""

import pytest

from mllm_npu.device.platform import PLATFORMS, platform_named
from mllm_npu.errors import ConfigError, DeviceError
from mllm_npu.serve.ray_options import RayPlan

apps = pytest.importorskip("mllm_npu.serve.ray_app", exc_type=ImportError)
PLAN = RayPlan(models={"a": "/a", "b": "/b"}, worker=("--slots", "4"), api_keys="/keys")


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"CPU": 64.0, "GPU": 8.0, "NPU": 8.0}, "npu"),
        ({"CPU": 64.0, "GPU": 8.0}, "cuda"),
        ({"CPU": 64.0}, "cpu"),
        ({}, "cpu"),
    ],
)
def test_auto_takes_the_best_that_ray_counts(resources, name):
    assert apps.best_platform("auto", resources).name == name
    assert apps.best_platform("auto", resources, among=PLATFORMS[-1:]).name == "cpu"


def test_a_kind_that_was_asked_for_is_taken_and_an_unknown_one_refused():
    assert apps.best_platform("cuda", {}).name == "cuda"
    with pytest.raises(DeviceError, match="knows npu, cuda, cpu"):
        apps.best_platform("abacus", {})


def front_of(application):
    """Options of the front, what it is bound with, and the same of each model."""
    front = application._bound_deployment
    models = {name: bound._bound_deployment for name, bound in front.init_args[0].items()}
    return front, models


def test_a_front_holds_a_deployment_for_each_model():
    front, models = front_of(apps.build_application(PLAN, platform=platform_named("npu")))
    assert front.name == "front"
    assert front.init_kwargs == {
        "worker": ["--slots", "4"],
        "api_keys": "/keys",
        "needs_keys": False,
    }
    assert [deployment.name for deployment in models.values()] == ["a", "b"]
    first = models["a"]
    assert first.init_args == (["--slots", "4", "--model=/a", "--name=a", "--device=npu"],)
    assert first.ray_actor_options["resources"] == {"NPU": 1}
    assert first.func_or_class is apps.ModelReplica


def test_what_is_passed_to_ray_is_plain(monkeypatch):
    monkeypatch.setattr(apps, "_ray", Resources())
    front, models = front_of(apps.build_app(PLAN.to_plain()))
    for deployment in (front, *models.values()):
        for value in deployment.init_kwargs.values():
            assert isinstance(value, str | list | bool)
    assert models["b"].ray_actor_options.get("num_gpus") == 1
    with pytest.raises(ConfigError, match="models is a table"):
        apps.build_app({"runs": ["a"]})


class Resources:
    """A Ray with GPUs."""

    @staticmethod
    def cluster_resources():
        return {"CPU": 8.0, "GPU": 2.0}
