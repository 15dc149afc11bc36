"""The configuration file of a service, as ``serve deploy`` and KubeRay take it."""

from __future__ import annotations

from typing import Any

import yaml

from mllm_npu.serve.ray_options import RayPlan

APP_NAME = "mllm-npu"
IMPORT_PATH = "mllm_npu.serve.ray_app:build_app"


def config_values(plan: RayPlan, *, host: str, port: int) -> dict[str, Any]:
    """The values of the file.

    Args:
        plan: what the service consists of.
        host: where it is to be reached, on each machine.
        port: the same.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": APP_NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": plan.to_plain(),
            }
        ],
    }


def render_config(plan: RayPlan, *, host: str, port: int) -> str:
    """The file; its arguments are those of ``config_values``."""
    return str(yaml.safe_dump(config_values(plan, host=host, port=port), sort_keys=False))
