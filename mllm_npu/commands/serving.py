"""Command that answers over HTTP: serve."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_npu.commands import ray_options, serving_ray
from mllm_npu.commands.console import Json, Quantize, bar, console, later
from mllm_npu.errors import ConfigError
from mllm_npu.shipped import resolve_run, shipped_names

app = typer.Typer()

DEFAULT_RUN = Path("runs/digits")
PAGE_MODULE = "mllm_npu.serve.gradio_app"
CONTROLLER = (sys.executable, "-m", "mllm_npu.serve.controller")
WORKER = (sys.executable, "-m", "mllm_npu.serve.worker")
PAGE = (sys.executable, "-m", PAGE_MODULE)
LOOPBACK = "127.0.0.1"
NONE: Mapping[str, str] = {}
EVERY_ADDRESS = ("0.0.0.0", "::")


class Dispatch(StrEnum):
    """How the controller chooses a worker."""

    SHORTEST_QUEUE = "shortest_queue"
    LOTTERY = "lottery"


@app.command(
    epilog="Examples: `mllm-npu serve runs/digits` · "
    "`mllm-npu serve runs/digits runs/scenes --workers 2 --port 8000` · "
    "`mllm-npu serve runs/digits --host 0.0.0.0 --api-keys keys.txt` · "
    "`mllm-npu serve digits=runs/digits --ray --max-replicas 4`"
)
def serve(
    ctx: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Runs, stages or models; {DEFAULT_RUN} if none.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes for each of them.")] = 1,
    host: Annotated[str, typer.Option(help="Address clients reach; 0.0.0.0 for all.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 10000,
    page_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the web page; 0 takes a free one.")
    ] = 0,
    page: Annotated[bool, typer.Option(help="Start the web page too.")] = True,
    device: Annotated[
        str, typer.Option(help="Of the workers, which share all of its kind; KIND:2 is one.")
    ] = "auto",
    dispatch: Annotated[
        Dispatch, typer.Option(help="How a worker is chosen.")
    ] = Dispatch.SHORTEST_QUEUE,
    api_keys: Annotated[
        Path | None, typer.Option(help="File with the keys of clients, one a line.")
    ] = None,
    logs: Annotated[Path | None, typer.Option(help="Folder for what the parts say.")] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to become ready in.")] = 600.0,
    drain: Annotated[
        int, typer.Option(min=1, help="Seconds for replies to end in at a stop.")
    ] = 30,
    quantize: Quantize = None,
    as_json: Json = False,
    ray: ray_options.OnRay = False,
    ray_address: ray_options.Address = None,
    min_replicas: ray_options.MinReplicas = None,
    max_replicas: ray_options.MaxReplicas = None,
    replica_cpus: ray_options.ReplicaCpus = None,
    target_requests: ray_options.TargetRequests = None,
    upscale_delay: ray_options.UpscaleDelay = None,
    downscale_delay: ray_options.DownscaleDelay = None,
    max_surge: ray_options.MaxSurge = None,
    stop: ray_options.Stop = False,
    print_config: ray_options.PrintConfig = False,
) -> None:
    """Answer over HTTP on this machine: a controller, workers, and the web page.

    OpenAI's API and the original's are at one address. A part that ends is started again. Ctrl-C or
    SIGTERM lets replies that have begun come to their end. With --ray it is on Ray Serve.
    """
    if ray_options.is_asked(ctx.params):
        serving_ray.serve(
            ctx.params,
            default_run=DEFAULT_RUN,
            make_parts=_Plan,
            stop_on_signals=_stop_on_signals,
        )
        return
    later("serve.libraries").check_libraries()
    launching = later("serve.launching")
    listen = later("serve.controller_server").listen
    asked = runs or [DEFAULT_RUN]
    listen(host, port).close()
    folder = logs or Path(tempfile.mkdtemp(prefix="mllm-npu-serve-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = _Plan(
        launching=launching,
        folder=folder,
        host=host,
        port=port,
        keys=["--api-keys", str(api_keys.resolve())] if api_keys else [],
        drain=drain,
        threads=(os.cpu_count() or 1) // (workers * len(asked)),
    )
    if workers * len(asked) > 1 or ":" in device:
        plan.share_out(device, workers * len(asked))
    for run in asked:
        plan.add_workers(run, workers, device=device, quantize=quantize)
    plan.add_controller(dispatch)
    if page:
        plan.add_page(page_port)
    _run(plan, wait=wait, as_json=as_json)


def _run(plan: _Plan, *, wait: float, as_json: bool) -> None:
    stopping = _stop_on_signals()
    with plan.service() as service:
        stopping.kill = service.kill
        progress, move = bar("starting")
        with progress:
            ready = service.start(seconds=wait, stopping=stopping, progress=move)
        if ready:
            _tell(plan, as_json=as_json)
            service.watch(stopping)
        console.print("stopping; replies that have begun come to their end")


class _Stopping(threading.Event):
    """Set by the first signal; the second one kills."""

    kill: Any = None

    def take(self, number: int, frame: object) -> None:
        """Take a signal."""
        if self.is_set() and self.kill is not None:
            self.kill()
        self.set()


def _stop_on_signals() -> _Stopping:
    stopping = _Stopping()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopping.take)
    return stopping


class _Plan:
    """Which parts there are, and how each is started."""

    def __init__(
        self,
        *,
        launching: Any,
        folder: Path,
        host: str,
        port: int,
        keys: list[str],
        drain: int,
        threads: int,
    ) -> None:
        self.launching, self.folder, self.host = launching, folder, host
        self.port = port or launching.free_ports(1, host)[0]
        self.keys, self.drain, self.threads = keys, drain, threads
        self.near = LOOPBACK if host in EVERY_ADDRESS else host
        self.token = secrets.token_urlsafe(32)
        self.parts: list[Any] = []
        self.workers: list[Any] = []
        self.places: list[Any] = []
        self.page: Any = None

    @property
    def url(self) -> str:
        """Where the controller is reached on this machine."""
        return _url(self.near, self.port)

    def service(self) -> Any:
        """What runs the parts."""
        return self.launching.Service(self.parts, say=console.print, drain_seconds=self.drain)

    def share_out(self, device: str, number: int) -> None:
        """Give every worker a device of its own, or as few others on it as can be.

        Raises:
            DeviceError: there is no such device.
        """
        self.places = later("device.placement").share_out(device, number)
        names = list(dict.fromkeys(place.name for place in self.places if place.variables))
        if 0 < len(names) < number:
            console.print(f"{number} workers share {', '.join(names)}, in turn")

    def add_workers(
        self, run: Path, number: int, *, device: str, quantize: str | None = None
    ) -> None:
        """Processes that answer with a model; they listen on this machine only.

        Raises:
            ConfigError: there is no such folder.
        """
        if not resolve_run(run).is_dir():
            raise ConfigError(
                f"{run} was asked for, there is no such folder. Give the folder of a run, the name "
                f"of a model that comes with the package ({', '.join(shipped_names())}), or make "
                "the run of digits: make demo"
            )
        for port in self.launching.free_ports(number):
            name = f"worker {len(self.workers) + 1}"
            place = self.places[len(self.workers)] if self.places else None
            command = [*WORKER, "--host", LOOPBACK, "--port", str(port)]
            command += ["--device", place.device if place else device]
            command += ["--model", str(run), "--controller", self.url, *self.keys]
            command += ["--drain-seconds", str(self.drain)]
            command += ["--quantize", str(quantize)] if quantize else []
            variables = place.variables if place else {}
            self.workers.append(self._part(name, command, _url(LOOPBACK, port), variables))
        self.parts[:] = self.workers

    def add_controller(self, dispatch: Dispatch) -> None:
        """The process that clients reach; it is ready when all workers have registered."""
        command = [*CONTROLLER, "--host", self.host, "--port", str(self.port), *self.keys]
        command += ["--dispatch", dispatch.value, "--drain", str(self.drain)]
        part = self._part("controller", command, self.url)
        part.ready = f"?workers={len(self.workers)}"
        self.parts.append(part)

    def add_page(self, port: int) -> None:
        """The web page, where there is one."""
        if importlib.util.find_spec("gradio") is None:
            console.print("no web page: gradio is not installed; the API is there")
            return
        port = port or self.launching.free_ports(1, self.host)[0]
        command = [*PAGE, "--host", self.host, "--port", str(port), "--controller", self.url]
        self.page = self._part("page", command, _url(self.near, port))
        self.page.health = "/"
        self.parts.append(self.page)

    def _part(
        self, name: str, command: list[str], url: str, variables: Mapping[str, str] = NONE
    ) -> Any:
        token_variable = later("serve.security").TOKEN_VARIABLE
        environment = {token_variable: self.token, **variables}
        if name.startswith("worker") and "OMP_NUM_THREADS" not in os.environ:
            # More threads than cores make each other wait.
            environment["OMP_NUM_THREADS"] = str(max(1, self.threads))
        log = self.folder / f"{name.replace(' ', '-')}.log"
        return self.launching.Part(
            name=name, command=tuple(command), url=url, log=log, environment=environment
        )


def _tell(plan: _Plan, *, as_json: bool) -> None:
    addresses = {
        "api": f"{plan.url}/v1",
        "controller": plan.url,
        "workers": [part.url for part in plan.workers],
        "devices": [place.name for place in plan.places],
        "page": plan.page and plan.page.url,
        "logs": str(plan.folder),
    }
    if as_json:
        typer.echo(json.dumps(addresses))
        return
    console.print(f"OpenAI's API   {addresses['api']}")
    console.print(f"all endpoints  {plan.url}/docs")
    if plan.page is not None:
        console.print(f"web page       {plan.page.url}")
    console.print(f"workers        {' '.join(addresses['workers'])}")
    if plan.places:
        console.print(f"on             {' '.join(addresses['devices'])}")
    console.print(f"what they say  {plan.folder}")
    if plan.host != plan.near or plan.host not in (LOOPBACK, "localhost", "::1"):
        to_do = "" if plan.keys else "; without --api-keys whoever reaches it may ask"
        console.print(f"other machines reach it at port {plan.port}{to_do}")
    console.print("Ctrl-C stops all of it")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
