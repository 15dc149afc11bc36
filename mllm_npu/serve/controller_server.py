"""Listen at an address until a signal comes, then let replies that have begun come to their end."""

from __future__ import annotations

import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from mllm_npu.errors import ConfigError

WAITING_CONNECTIONS = 2048
LARGEST_PORT = 65535


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: name or number of an interface of this machine.
        port: 0 takes a free one.

    Raises:
        ConfigError: it cannot be had.
    """
    if not 0 <= port <= LARGEST_PORT:
        raise ConfigError(f"--port={port} was asked for. Ports are 0 to {LARGEST_PORT}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=WAITING_CONNECTIONS)
    except OSError as error:
        said = str(error).partition("] ")[2] or str(error)
        raise ConfigError(
            f"Port {port} of {host} was asked for: {said}. Stop what listens there, or give "
            "another address with --port and --host."
        ) from error


def run_server(app: ASGIApp, *, host: str, port: int, drain_seconds: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: what is served.
        host: where to listen.
        port: where to listen; 0 takes a free one.
        drain_seconds: longest time that replies get to end in.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = listen(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    # uvicorn raises a signal that it has obeyed once more; a stop in good order is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
