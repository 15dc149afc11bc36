"""Options of ``serve`` that are for Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mllm_npu.errors import ConfigError

_PANEL = "Ray Serve"

OnRay = Annotated[bool, typer.Option("--ray", help="Put it on Ray Serve.", rich_help_panel=_PANEL)]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray that runs, or auto; else one is started.", rich_help_panel=_PANEL),
]
MinReplicas = Annotated[
    int | None,
    typer.Option(min=0, help="Of each model; --workers if none.", rich_help_panel=_PANEL),
]
MaxReplicas = Annotated[
    int | None, typer.Option(min=1, help="The same as the least if none.", rich_help_panel=_PANEL)
]
ReplicaCpus = Annotated[
    float | None, typer.Option(min=0, help="Cores of a replica.", rich_help_panel=_PANEL)
]
TargetRequests = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Requests per replica from which on there are more; an engine's slots if none.",
        rich_help_panel=_PANEL,
    ),
]
UpscaleDelay = Annotated[
    float | None, typer.Option(min=0, help="Seconds of high load.", rich_help_panel=_PANEL)
]
DownscaleDelay = Annotated[
    float | None, typer.Option(min=0, help="Seconds of low load.", rich_help_panel=_PANEL)
]
MaxSurge = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=100,
        help="Percent of replicas that an update starts before it stops old ones; 0 where no "
        "device is free.",
        rich_help_panel=_PANEL,
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop", help="Take it away from that Ray.", rich_help_panel=_PANEL)
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config", help="Print what serve deploy takes, and end.", rich_help_panel=_PANEL
    ),
]
OPTIONS = (
    *("ray_address", "min_replicas", "max_replicas", "replica_cpus", "target_requests"),
    *("upscale_delay", "downscale_delay", "max_surge", "stop", "print_config"),
)


def is_asked(typed: Mapping[str, Any]) -> bool:
    """Whether the service is to be on Ray.

    Args:
        typed: the values of the options, by name.

    Raises:
        ConfigError: an option is for Ray, and Ray was not asked for.
    """
    meant = [name for name in OPTIONS if typed[name] is not None and typed[name] is not False]
    if meant and not typed["ray"]:
        option = meant[0].replace("_", "-")
        raise ConfigError(f"--{option} is an option of Ray Serve. Give --ray too, or leave it out.")
    return bool(typed["ray"])
