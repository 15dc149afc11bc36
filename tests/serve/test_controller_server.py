"""An address is taken or refused in one line; a signal lets replies end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve.controller_server import listen

APP = """
import asyncio, sys
from mllm_npu.serve.controller_server import run_server

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(4):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(float(sys.argv[2]))
    await send({"type": "http.response.body", "body": b""})

run_server(app, host="127.0.0.1", port=int(sys.argv[1]), drain_seconds=int(sys.argv[3]))
"""


@pytest.fixture
def start():
    """Starts an app that takes its time; ends it."""
    started = []

    def start(pause, drain):
        with listen("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-c", APP, str(port), str(pause), str(drain)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1], f"http://127.0.0.1:{port}/"

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_slowly(url, texts):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with httpx.stream("GET", url, trust_env=False, timeout=30) as reply:
                texts.extend(reply.iter_text())
        except httpx.ConnectError:
            time.sleep(0.05)
        except httpx.RemoteProtocolError:
            texts.append("cut")
        if texts:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_replies_end(start, number):
    process, url = start(0.3, 20)
    texts = []
    reading = threading.Thread(target=read_slowly, args=(url, texts))
    reading.start()
    while not texts:
        time.sleep(0.02)
    os.kill(process.pid, number)
    reading.join(30)
    assert "".join(texts) == "xxxx"
    assert process.wait(10) == 0


def test_a_reply_that_does_not_end_does_not_keep_the_server(start):
    process, url = start(60, 1)
    texts = []
    reading = threading.Thread(target=read_slowly, args=(url, texts))
    reading.start()
    while not texts:
        time.sleep(0.02)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(15) == 0
    assert time.monotonic() - began < 10
    reading.join(30)
    assert "".join(texts) in ("x", "xcut")


def test_a_free_port_is_found():
    with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as other:
        assert one.getsockname()[1] != other.getsockname()[1]


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_an_address_may_be_of_the_new_kind():
    try:
        with listen("::1", 0) as listener:
            assert listener.family == socket.AF_INET6
    except ConfigError as error:
        pytest.skip(str(error))


def test_an_address_that_cannot_be_had_is_refused():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 was asked for: .* in use"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="--host"):
        listen("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="--port"):
        listen("127.0.0.1", 70000)


def test_the_listener_serves_an_event_loop():
    async def ask():
        with listen("127.0.0.1", 0) as listener:
            server = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert await reader.read() == b""
            writer.close()
            server.close()
            await server.wait_closed()

    asyncio.run(ask())
