"""A service on Ray Serve: a front that clients reach, and a deployment for each model.

``serve deploy`` takes a file that names ``mllm_npu.serve.ray_app:build_app`` and its arguments;
``mllm-npu serve RUNS --ray --print-config`` writes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve

from mllm_npu.device.platform import PLATFORMS, Platform, platform_named
from mllm_npu.serve.ray_front import Front
from mllm_npu.serve.ray_options import RayPlan
from mllm_npu.serve.ray_replica import ModelReplica

_ray: Any = ray


def best_platform(
    name: str, resources: Mapping[str, float], *, among: Sequence[Platform] = PLATFORMS
) -> Platform:
    """The kind of device that replicas use.

    Args:
        name: of a row of the table of platforms; auto takes the best that is among the resources.
        resources: what a cluster has, in Ray's words.
        among: rows of which auto takes the first that is there; the CPU is the last.

    Raises:
        DeviceError: there is no such kind.
    """
    if name != "auto":
        return platform_named(name)
    found = [platform for platform in among if resources.get(platform.ray_resource, 0) >= 1]
    return found[0] if found else among[-1]


def build_application(
    plan: RayPlan, *, platform: Platform, replica: type[ModelReplica] | None = None
) -> serve.Application:
    """The application that Ray Serve runs.

    Args:
        plan: what it consists of.
        platform: what its replicas compute on.
        replica: what holds a model; None: ``ModelReplica``.
    """
    options = plan.model_options(platform)
    held: Any = serve.deployment(replica or ModelReplica)
    models = {
        name: held.options(name=name, **options).bind(plan.words(name, platform.name))
        for name in plan.models
    }
    front: Any = serve.deployment(serve.ingress()(Front))
    return front.options(**plan.front_options()).bind(
        models,
        worker=list(plan.worker),
        api_keys=plan.api_keys,
        needs_keys=plan.needs_keys,
    )


def build_app(args: dict[str, Any]) -> serve.Application:
    """What a configuration file of Ray Serve names as ``import_path``.

    Args:
        args: the values of a ``RayPlan``.

    Raises:
        ConfigError: one cannot be.
    """
    plan = RayPlan.from_plain(args)
    resources: Mapping[str, float] = _ray.cluster_resources()
    return build_application(plan, platform=best_platform(plan.device, resources))
