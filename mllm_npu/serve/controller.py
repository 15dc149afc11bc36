"""Stand in front of several workers: one address for all models, and workers may come and go.

    python mllm_npu/serve/controller.py --host 0.0.0.0 --port 10000

Workers register and send heartbeats. Clients ask the same paths as those of a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Run as a file, Python looks for modules in this folder first; they are those of the package.
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).resolve().parent)]

    from mllm_npu.serve.libraries import require_libraries

    require_libraries()

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mllm_npu import __version__
from mllm_npu.errors import ConfigError, MllmNpuError
from mllm_npu.serve import api_page
from mllm_npu.serve.api_description import DescribedApp
from mllm_npu.serve.api_errors import ApiError, describe_invalid
from mllm_npu.serve.controller_metrics import ControllerMetrics
from mllm_npu.serve.controller_original import original_routes
from mllm_npu.serve.controller_pages import describe_forwarded, public_routes
from mllm_npu.serve.controller_replies import ORIGINAL_ALIAS, refuse
from mllm_npu.serve.controller_request import read_request
from mllm_npu.serve.controller_server import run_server
from mllm_npu.serve.controller_token import TokenCheck
from mllm_npu.serve.dispatch import Dispatch, Pick, make_pick
from mllm_npu.serve.forwarding import Forwarder, Relayed, make_client
from mllm_npu.serve.protocol import (
    FORWARDED_PATHS,
    HEARTBEAT_PATH,
    HEARTBEAT_SECONDS,
    PROTOCOL_VERSION,
    REGISTER_PATH,
    UNREGISTER_PATH,
    Farewell,
    Heartbeat,
    HeartbeatTaken,
    Registered,
    Registration,
)
from mllm_npu.serve.registry import Registry
from mllm_npu.serve.security import (
    OPEN_PATHS,
    ApiKeys,
    BodyLimit,
    KeyGuard,
    read_keys,
    read_token,
)

PATHS_OF_WORKERS = frozenset(
    {
        *(REGISTER_PATH, HEARTBEAT_PATH, UNREGISTER_PATH),
        *("/register_worker", "/receive_heart_beat", "/refresh_all_workers"),
    }
)
"""They take the token, not a client's key."""
CLIENT_LEFT = 499


def create_app(
    *,
    registry: Registry,
    pick: Pick,
    keys: ApiKeys,
    token: str | None = None,
    max_body_bytes: int = 32 * 1024 * 1024,
    body_seconds: float = 60.0,
    timeout_seconds: float = 900.0,
) -> FastAPI:
    """Put a controller together.

    Args:
        registry: the workers.
        pick: chooses among them.
        keys: of clients; without any it is open.
        token: that workers show, and are shown; without one they must be on this machine.
        max_body_bytes: of a request.
        body_seconds: until a request has arrived.
        timeout_seconds: until its reply has ended.
    """
    client, metrics = make_client(), ControllerMetrics(registry)
    forwarder = Forwarder(
        client=client,
        registry=registry,
        pick=pick,
        token=token,
        tell=metrics.tell,
        timeout_seconds=timeout_seconds,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(registry))
        try:
            yield
        finally:
            watching.cancel()
            await client.aclose()

    app = DescribedApp(title="mllm-npu controller", version=__version__, lifespan=lifespan)
    # The last one added is asked first.
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes, seconds=body_seconds)
    app.add_middleware(KeyGuard, keys=keys, open_paths=OPEN_PATHS | PATHS_OF_WORKERS)
    _explain_refusals(app)
    check_token = TokenCheck(token)

    async def forward(request: Request) -> Response:
        return Relayed(forwarder, await read_request(request, registry))

    # In the order in which the page tells them.
    for path in FORWARDED_PATHS:
        app.post(path, **describe_forwarded(path))(forward)
    app.post(ORIGINAL_ALIAS, include_in_schema=False)(forward)
    app.include_router(public_routes(registry=registry, metrics=metrics))
    app.include_router(
        original_routes(registry=registry, pick=pick, client=client, check_token=check_token)
    )
    app.include_router(api_page.router)
    _add_worker_routes(app, registry, check_token)
    return app


def _add_worker_routes(app: FastAPI, registry: Registry, check_token: TokenCheck) -> None:
    options: dict[str, Any] = {"dependencies": [Depends(check_token)], "tags": ["workers"]}

    @app.post(REGISTER_PATH, **options)
    async def register(said: Registration) -> Registered:
        """A worker says what it answers with."""
        if said.protocol != PROTOCOL_VERSION:
            raise ApiError(
                f"The worker speaks protocol {said.protocol}, this controller {PROTOCOL_VERSION}. "
                "Run the same version of mllm-npu on both.",
                param="protocol",
            )
        registry.register(said.url, said.models)
        _say(f"worker {said.url} answers with {', '.join(card.id for card in said.models)}")
        return Registered(heartbeat_seconds=registry.heartbeat_seconds)

    @app.post(HEARTBEAT_PATH, **options)
    async def heartbeat(said: Heartbeat) -> HeartbeatTaken:
        """A worker is alive."""
        load = said.queued + said.running
        known = registry.hear(said.url, load=load, models=said.models, draining=said.draining)
        return HeartbeatTaken(known=known)

    @app.post(UNREGISTER_PATH, **options)
    async def unregister(said: Farewell) -> HeartbeatTaken:
        """A worker goes and gets nothing new."""
        known = registry.dismiss(said.url)
        if known:
            _say(f"worker {said.url} has said farewell")
        return HeartbeatTaken(known=known)


def _explain_refusals(app: FastAPI) -> None:
    def handle(kind: type[Exception], explain: Callable[[Any], ApiError]) -> None:
        async def answer(request: Request, error: Exception) -> Response:
            return refuse(request.url.path, explain(error))

        app.add_exception_handler(kind, answer)

    def of_validation(error: RequestValidationError) -> ApiError:
        message, param = describe_invalid(error.errors())
        return ApiError(message, param=param)

    handle(ApiError, lambda error: error)
    handle(HTTPException, lambda error: ApiError(str(error.detail), status=error.status_code))
    handle(RequestValidationError, of_validation)
    handle(ClientDisconnect, lambda _: ApiError("The client has left.", status=CLIENT_LEFT))


async def _watch(registry: Registry) -> None:
    """Forget silent workers in time, also while nobody asks for one."""
    while True:
        await asyncio.sleep(registry.heartbeat_seconds / 20)
        for worker in registry.remove_silent():
            _say(f"worker {worker.url} is silent and forgotten")


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def read_arguments(typed: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=10000)
    parser.add_argument(
        "--dispatch",
        "--dispatch-method",
        choices=[each.value for each in Dispatch],
        default=Dispatch.SHORTEST_QUEUE.value,
        help="how a worker is chosen",
    )
    parser.add_argument("--default-model", help="for requests that name none")
    parser.add_argument("--api-keys", type=Path, help="file with the keys of clients, one a line")
    parser.add_argument("--heartbeat", type=float, default=HEARTBEAT_SECONDS, help="seconds")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds until a reply ends")
    parser.add_argument("--max-body-mb", type=float, default=32.0, help="largest request")
    parser.add_argument("--drain", type=int, default=60, help="seconds that SIGTERM leaves replies")
    return parser.parse_args(typed)


def build_app(asked: argparse.Namespace) -> FastAPI:
    """The controller that was asked for.

    Raises:
        ConfigError: a number cannot be, or the keys cannot be read.
    """
    for name in ("heartbeat", "timeout", "max_body_mb"):
        if not getattr(asked, name) > 0:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}={getattr(asked, name)}. Give a number above 0.")
    return create_app(
        registry=Registry(
            heartbeat_seconds=asked.heartbeat, default_model=asked.default_model or None
        ),
        pick=make_pick(Dispatch(asked.dispatch)),
        keys=ApiKeys(read_keys(asked.api_keys)),
        token=read_token(None),
        max_body_bytes=int(asked.max_body_mb * 1024 * 1024),
        timeout_seconds=asked.timeout,
    )


def main(typed: Sequence[str] | None = None) -> int:
    """Run a controller until SIGTERM or Ctrl-C; replies that have begun are finished."""
    asked = read_arguments(typed)
    try:
        app = build_app(asked)
        run_server(app, host=asked.host, port=asked.port, drain_seconds=asked.drain)
    except MllmNpuError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
