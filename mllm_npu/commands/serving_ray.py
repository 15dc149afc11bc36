"""Ways of ``serve`` on Ray Serve: start it, update it, stop it, write its configuration file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from mllm_npu.commands.console import bar, console, later
from mllm_npu.errors import ConfigError, ServingError
from mllm_npu.shipped import resolve_run

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Says whether a replica that asks for no device sees those there are; Ray wants to be told.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What Ray reads from the environment when it is imported."""
TOKEN_MODE = {"RAY_AUTH_MODE": "token"}
"""Whoever talks to Ray itself shows a token; Ray makes one where there is none."""
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without clusters all of Ray listens on 127.0.0.1 alone, and is looked for there."""
_NEAR = ("127.0.0.1:", "localhost:")
DEFAULTS = {
    "target_requests": "target_requests",
    "upscale_delay": "upscale_seconds",
    "downscale_delay": "downscale_seconds",
    "replica_cpus": "replica_cpus",
    "max_surge": "surge_percent",
}
"""Options and what they are called in the plan, which has a value where none was given."""
_UPDATE_HINT = "What ran there before runs on. Mend what is wrong, and give the same command again."


def serve(
    typed: Mapping[str, Any],
    *,
    default_run: Path,
    make_parts: Callable[..., Any],
    stop_on_signals: Callable[[], Any],
) -> None:
    """Serve on Ray.

    Args:
        typed: the values of the options, by name.
        default_run: where no run was named.
        make_parts: gives the plan of the processes beside Ray, of which the web page is one.
        stop_on_signals: gives the event that the first signal sets.

    Raises:
        ConfigError: Ray is not installed, or an option cannot be.
        ServingError: the service cannot be started.
    """
    if typed["print_config"]:
        render = later("serve.ray_config").render_config
        plan = _plan(typed, default_run)
        typer.echo(render(plan, host=typed["host"], port=typed["port"]), nl=False)
        return
    set_environment(typed["ray_address"])
    try:
        later("serve.ray_cluster")
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}. Install it: pip install 'mllm-npu[ray]'") from error
    if typed["stop"]:
        _stop(typed, stop_on_signals=stop_on_signals)
        return
    plan = _plan(typed, default_run)
    if typed["ray_address"]:
        _update(plan, typed, stop_on_signals=stop_on_signals)
    else:
        _run(plan, typed, make_parts=make_parts, stop_on_signals=stop_on_signals)


def set_environment(address: str | None) -> None:
    """Say what holds for Ray; before it is imported, and for all that it starts.

    Args:
        address: of the Ray that is joined; None: one is started here.
    """
    os.environ.update(ENVIRONMENT)
    if address is None or address == "auto" or address.startswith(_NEAR):
        os.environ.update(LOOPBACK_ONLY)
    if address is None:
        os.environ.update(TOKEN_MODE)  # replicas listen on every address
    elif "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ.update(TOKEN_MODE)


def _has_token() -> bool:
    """Whether there is a token for a Ray that asks for one; where it does not, none is shown."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _plan(typed: Mapping[str, Any], default_run: Path) -> Any:
    """What the service consists of."""
    options, security = later("serve.ray_options"), later("serve.security")
    if typed["dispatch"].value != "shortest_queue":
        raise ConfigError(
            f"--dispatch {typed['dispatch'].value} was asked for. Ray Serve chooses replicas by "
            "their queues; leave it out."
        )
    if typed["quantize"]:
        raise ConfigError(
            f"--quantize {typed['quantize'].value} was asked for. Replicas on Ray keep the weights "
            "as they are; leave it out."
        )
    if typed["device"] != "auto":
        later("device.platform").platform_named(typed["device"])
    keys = typed["api_keys"]
    is_far = bool(typed["ray_address"] or typed["print_config"])
    least = typed["workers"] if typed["min_replicas"] is None else typed["min_replicas"]
    given = {name: typed[option] for option, name in DEFAULTS.items() if typed[option] is not None}
    return options.RayPlan(
        models=_models(typed["runs"] or [default_run], is_far=is_far),
        device=typed["device"],
        min_replicas=least,
        max_replicas=max(1, least) if typed["max_replicas"] is None else typed["max_replicas"],
        drain_seconds=float(typed["drain"]),
        api_keys=keys and str(keys.resolve()),
        needs_keys=bool(security.read_keys(keys)),
        **given,
    )


def _models(runs: list[Path], *, is_far: bool) -> dict[str, str]:
    """Folder of each model, by the name that clients use.

    Args:
        runs: as typed.
        is_far: whether the folders need not be on this machine where their names are given.
    """
    split_name = later("serve.ray_options").split_name
    models: dict[str, str] = {}
    for run in runs:
        name, folder = split_name(str(run))
        folder = resolve_run(folder)
        if not (folder.is_dir() or (name and is_far)):
            raise ConfigError(
                f"{folder} was asked for, there is no such folder. Give the folder of a run; where "
                "only the machines of Ray have it, with its name: NAME=FOLDER"
            )
        name = name or _name_of(folder)
        if name in models:
            raise ConfigError(
                f"{folder} and {models[name]} were both to be called {name!r}. Give one of them "
                f"another name: NAME={folder}"
            )
        models[name] = str(folder.resolve())
    return models


def _name_of(folder: Path) -> str:
    """What a model calls itself."""
    folders = later("model_folder")
    found = folders.find_model_folder(folder)
    return str(later("config").read_config(found / folders.MODEL_FILE, "model").name)


def _run(
    plan: Any,
    typed: Mapping[str, Any],
    *,
    make_parts: Callable[..., Any],
    stop_on_signals: Callable[[], Any],
) -> None:
    """On a Ray of this machine, until a signal."""
    later("serve.controller_server").listen(typed["host"], typed["port"]).close()
    launching = later("serve.launching")
    folder = typed["logs"] or Path(tempfile.mkdtemp(prefix="mllm-npu-serve-"))
    folder.mkdir(parents=True, exist_ok=True)
    parts = make_parts(
        launching=launching,
        folder=folder,
        host=typed["host"],
        port=typed["port"],
        keys=["--api-keys", plan.api_keys] if plan.api_keys else [],
        drain=typed["drain"],
        threads=1,
    )
    # All replicas and as many new ones; on one machine nothing else counts on them.
    cores = math.ceil(2 * plan.max_replicas * len(plan.models) * plan.replica_cpus) + 1
    with _joined(None, stop_on_signals, num_cpus=cores) as (cluster, stopping):
        hurry = threading.Event()
        stopping.kill = hurry.set
        if stopping.is_set():
            return
        url = _deploy(cluster, plan, typed, port=parts.port)
        if not _wait(cluster, typed, stopping):
            return
        if typed["page"]:
            parts.add_page(typed["page_port"])
        with parts.service() as pages:
            if pages.start(seconds=typed["wait"], stopping=stopping, progress=lambda *_: None):
                _tell(cluster, url, typed, page=parts.page, is_open=not plan.needs_keys)
                pages.watch(stopping)
            console.print("stopping; replies that have begun come to their end")
        cluster.delete(seconds=plan.drain_seconds, hurry=hurry)


def _update(plan: Any, typed: Mapping[str, Any], *, stop_on_signals: Callable[[], Any]) -> None:
    """On a Ray that runs: the service is put there, or becomes what it is now to be."""
    with _joined(typed["ray_address"], stop_on_signals) as (cluster, stopping):
        if stopping.is_set():
            return
        url = _deploy(cluster, plan, typed, port=typed["port"])
        try:
            is_ready = _wait(cluster, typed, stopping)
        except ServingError as error:
            raise ServingError(f"{error} {_UPDATE_HINT}") from error
        if is_ready:
            _tell(cluster, url, typed, page=None, is_open=not plan.needs_keys)
        else:
            console.print(f"waiting no longer, Ray goes on with it; its state: {url}/health")


def _stop(typed: Mapping[str, Any], *, stop_on_signals: Callable[[], Any]) -> None:
    """Take the service away from a Ray that runs."""
    if typed["ray_address"] is None:
        raise ConfigError("--stop was asked for. Say of which Ray: --ray-address auto")
    with _joined(typed["ray_address"], stop_on_signals) as (cluster, hurry):
        was_there = cluster.delete(seconds=float(typed["drain"]), hurry=hurry)
    console.print("stopped" if was_there else "there is no such service on that Ray")


@contextmanager
def _joined(
    address: str | None, stop_on_signals: Callable[[], Any], *, num_cpus: int = 0
) -> Iterator[tuple[Any, Any]]:
    """A Ray, and the event that the first signal sets, also one that comes while Ray starts."""
    early = stop_on_signals()
    with later("serve.ray_cluster").RayCluster(address, num_cpus=num_cpus) as cluster:
        stopping = stop_on_signals()  # Ray has put its own in the place of the first ones
        if early.is_set():
            stopping.set()
        yield cluster, stopping


def _deploy(cluster: Any, plan: Any, typed: Mapping[str, Any], *, port: int) -> str:
    apps, demand = later("serve.ray_app"), later("serve.ray_options").demand
    platforms = later("device.platform")
    # What Ray sees on this machine torch may have no build or driver for.
    among = platforms.available_platforms() if cluster.is_own else platforms.PLATFORMS
    platform = apps.best_platform(plan.device, cluster.resources(), among=among)
    needed = demand(platform, num_cpus=plan.replica_cpus)
    if typed["max_surge"] is None and not cluster.has_room(needed):
        console.print("nothing is free for another replica; an update stops an old one first")
        plan = dataclasses.replace(plan, surge_percent=0)
    application = apps.build_application(plan, platform=platform)
    url: str = cluster.deploy(application, host=typed["host"], port=port)
    return url


def _wait(cluster: Any, typed: Mapping[str, Any], stopping: threading.Event) -> bool:
    progress, move = bar("starting")
    with progress:
        ready: bool = cluster.wait(seconds=typed["wait"], stopping=stopping, progress=move)
    return ready


def _tell(cluster: Any, url: str, typed: Mapping[str, Any], *, page: Any, is_open: bool) -> None:
    addresses = {
        "api": f"{url}/v1",
        "controller": url,
        "ray": cluster.address,
        "page": page and page.url,
        "logs": cluster.logs,
    }
    if typed["as_json"]:
        typer.echo(json.dumps(addresses))
        return
    console.print(f"OpenAI's API   {addresses['api']}")
    console.print(f"all endpoints  {url}/docs")
    if page is not None:
        console.print(f"web page       {page.url}")
    console.print(f"Ray            {cluster.address}")
    console.print(f"what it says   {cluster.logs}")
    if typed["host"] not in ("127.0.0.1", "localhost", "::1") and is_open:
        console.print("other machines reach it; without --api-keys whoever reaches it may ask")
    if cluster.is_own:
        console.print("Ctrl-C stops all of it")
        return
    console.print(f"it runs on when this command ends; its state: {url}/health, or serve status")
    console.print(f"stop it with: mllm-npu serve --ray --ray-address {cluster.address} --stop")
