"""A Ray that this process starts or joins: put the service there, wait for it, take it away."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from mllm_npu.errors import ServingError
from mllm_npu.serve.ray_config import APP_NAME
from mllm_npu.serve.ray_options import FRONT

LOOK_SECONDS = 0.2
OBJECT_STORE_BYTES = 512 * 2**20
"""Of a Ray that is started here; requests and replies with pictures pass through it."""
SHUTDOWN_SECONDS = 10.0
REACH_SECONDS = 5.0
_START_RAY = "Start it: ray start --head, and give this command on one of its machines."
_NAMED_ERROR = re.compile(r"(?:[a-z_]+\.)*([A-Z]\w*Error): (.+)")
_ray: Any = ray


class RayCluster:
    """A Ray; as a context manager it is left at the end, and ended where it was started here.

    Args:
        address: of one that runs; None starts one on this machine, reached from it alone.
        num_cpus: cores that the one that is started counts with.

    Raises:
        ServingError: it cannot be reached.
    """

    def __init__(self, address: str | None, *, num_cpus: int) -> None:
        self.is_own = address is None
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        own = {"num_cpus": num_cpus, "object_store_memory": OBJECT_STORE_BYTES}
        if address is not None:
            check_reachable(address)
        try:
            context = _ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({**own, "include_dashboard": False} if self.is_own else {}),
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise ServingError(
                f"Ray at {address or 'this machine'} was asked for: {_one_line(error)}. "
                f"{_START_RAY} Where it asks for a token, have that too: ray get-auth-token"
            ) from error
        self.address: str = context.address_info["gcs_address"]
        self.logs = f"{context.address_info['session_dir']}/logs"

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _ray.shutdown()

    def resources(self) -> Mapping[str, float]:
        """What the machines have, in Ray's words."""
        found: Mapping[str, float] = _ray.cluster_resources()
        return found

    def has_room(self, needed: Mapping[str, float]) -> bool:
        """Whether something could run beside what runs.

        Args:
            needed: what it takes, in Ray's words.
        """
        free: Mapping[str, float] = _ray.available_resources()
        return all(free.get(name, 0.0) >= number for name, number in needed.items())

    def deploy(self, application: serve.Application, *, host: str, port: int) -> str:
        """Put a service there, or what has changed about it; does not wait until it is ready.

        Args:
            application: what it consists of.
            host: where it is to be reached, on each machine; a Serve that runs keeps its own.
            port: the same.

        Returns:
            The address at which it is reached.

        Raises:
            ServingError: Ray does not take it.
        """
        target = serve.RunTarget(target=application, name=APP_NAME, route_prefix="/")
        try:
            serve.start(http_options={"host": host, "port": port})
            serve.run_many([target], wait_for_applications_running=False)
        except (RayError, RayServeException, RuntimeError, TimeoutError) as error:
            raise ServingError(f"Ray Serve refuses the service: {_one_line(error)}") from error
        client: Any = _get_global_client()
        options: HTTPOptions = client.http_config
        return _url(str(options.host), options.port)

    def wait(
        self,
        *,
        seconds: float,
        stopping: threading.Event,
        progress: Callable[[int, int], None],
    ) -> bool:
        """Wait until all of the service runs.

        Args:
            seconds: to wait at most.
            stopping: set when the person does not want to wait any longer.
            progress: takes the number of deployments that are ready, and of all.

        Returns:
            Whether it is; False after ``stopping``.

        Raises:
            ServingError: it cannot be started, or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            app = _app()
            status = app.status.value if app else "DEPLOYING"
            deployments = app.deployments if app else {}
            ready = sum(each.status.value == "HEALTHY" for each in deployments.values())
            progress(ready, len(deployments))
            if status == "RUNNING":
                return True
            if status == "DEPLOY_FAILED":
                raise ServingError(f"The service was not started. {explain_failure(app)}")
            if time.monotonic() > deadline:
                raise ServingError(
                    f"The service did not become ready within {seconds:g} seconds: "
                    f"{explain_failure(app)} Give more time with --wait; where no device is free "
                    "for a new replica beside the old one, --max-surge 0 stops the old one first."
                )
            if stopping.wait(LOOK_SECONDS):
                return False

    def delete(self, *, seconds: float, hurry: threading.Event) -> bool:
        """Take the service away; replies that have begun come to their end.

        Args:
            seconds: for that.
            hurry: set when the person does not want to wait for them.

        Returns:
            Whether there was one.
        """
        if _app() is None:
            return False
        serve.delete(APP_NAME, _blocking=False)
        deadline = time.monotonic() + seconds + SHUTDOWN_SECONDS
        while _app() is not None and time.monotonic() < deadline:
            if hurry.wait(LOOK_SECONDS):
                break
        return True


def check_reachable(address: str) -> None:
    """Ray itself waits for minutes where nothing listens.

    Raises:
        ServingError: there is nothing at the address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise ServingError(f"Ray at {address} was asked for: {error}. {_START_RAY}") from error


def explain_failure(app: Any) -> str:
    """Why a service does not run, in one line: the refusal itself where one is told.

    Args:
        app: what Serve says about it; None when it says nothing.
    """
    if app is None:
        return "Ray says nothing about it."
    for name, deployment in app.deployments.items():
        found = _NAMED_ERROR.findall(deployment.message)
        if found:
            kind, message = found[-1]
            return f"{'' if name == FRONT else f'{name}: '}{kind}: {message}"
    messages = [f"{name}: {each.message}" for name, each in app.deployments.items() if each.message]
    return " ".join(messages or [app.message or "Ray says nothing about it."])[-600:]


def _app() -> Any:
    return serve.status().applications.get(APP_NAME)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]


def _url(host: str, port: int) -> str:
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"
