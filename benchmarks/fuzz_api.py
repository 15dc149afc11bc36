"""Does anything a client sends break the API? Malformed bodies, and schemathesis on its page.

    python benchmarks/fuzz_api.py --json
    python benchmarks/fuzz_api.py --json --through controller

Starts a worker with a tiny model in a process of its own, with ``--through controller`` a
controller in front of it, and sends ``--bodies`` malformed requests (broken JSON, base64, pictures,
forms and HTTP), and ``--examples`` requests that schemathesis makes of each endpoint's description,
half of them against it. Counted are replies with a status of 500 or above (``server_errors``),
requests without a reply within ``--seconds`` (``hung``), and ends of a process (``crashes``).
Targets: 0 of each. A controller's 503 where a model or a number of workers is asked for that is not
there is its right answer and not counted.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fuzz_bodies import Asked, make_request
from result_line import ROOT, print_line

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer
from mllm_npu.serve.launching import free_ports
from mllm_npu.serve.security import TOKEN_VARIABLE

MODEL = "tiny"
START_SECONDS = 120.0
RAW_SECONDS = 0.3
"""A broken HTTP request may rightly get no reply: the server waits for its rest."""

UNAVAILABLE_STATUS = 503
LIMITS = ("--max-new-tokens", "8", "--request-seconds", "60", "--max-pixels", "1000000")


def make_model(folder: Path) -> Path:
    """A model folder with untrained weights that reads and draws."""
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=16, num_locations=0))
    tokenizer.save_pretrained(folder / "world" / "tokenizer")
    config = load_config("training", [f"world_dir={folder / 'world'}", f"name={MODEL}"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server in a process of its own.

    Args:
        url: where it is reached.
        process: that runs it.
    """

    url: str
    process: subprocess.Popen[bytes]

    def wait(self, path: str, log: Path) -> None:
        """Return once a path answers."""
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.url + path):
            if self.has_ended() or time.monotonic() > deadline:
                message = f"{self.url} did not become ready: {log.read_text()}"
                raise SystemExit(message)
            time.sleep(0.1)

    def has_ended(self) -> bool:
        """Whether its process is not there any more."""
        return self.process.poll() is not None


@contextmanager
def running(name: str, folder: Path, *words: object) -> Iterator[Server]:
    """A file of the package as a server of its own, once it is healthy."""
    (port,) = free_ports(1)
    command = [sys.executable, ROOT / f"mllm_npu/serve/{name}.py", "--port", port, *words]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
    server = Server(url=f"http://127.0.0.1:{port}", process=process)
    try:
        server.wait("/health", log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


@contextmanager
def running_service(folder: Path, through: str) -> Iterator[list[Server]]:
    """The server that is asked, and the one behind it."""
    worker = ["--model", make_model(folder), "--device", "cpu", *LIMITS]
    # With a token nobody but the worker can register: what is made up would get requests.
    os.environ[TOKEN_VARIABLE] = secrets.token_urlsafe()
    with ExitStack() as stack:
        servers = []
        if through == "controller":
            servers.append(stack.enter_context(running("controller", folder)))
            worker += ["--controller", servers[0].url]
        servers.append(stack.enter_context(running("worker", folder, *worker)))
        if through == "controller":
            servers[0].wait("/health?workers=1", folder / "worker.log")
        yield servers


class Fuzzer:
    """Sends requests to a server and counts what must not happen.

    Args:
        servers: the one that is asked, and those behind it.
        seconds: after which a request counts as hung.
    """

    def __init__(self, servers: Sequence[Server], *, seconds: float) -> None:
        self.servers = servers
        self.url = servers[0].url
        self.seconds = seconds
        self.statuses: collections.Counter[int] = collections.Counter()
        self.failures: list[str] = []
        self.server_errors = 0
        self.hung = 0
        self.crashes = 0
        self._client = httpx.Client(timeout=seconds, trust_env=False)

    def send_malformed(self, number: int, *, seed: int) -> None:
        """Send malformed requests."""
        rng = random.Random(seed)
        for _ in range(number):
            asked = make_request(rng)
            if asked.raw:
                self._count(self._send_raw(asked.body), asked.body)
            else:
                reply = self._send(asked)
                self._count(reply and reply.status_code, asked.body, reply)
            if self.crashes:
                return

    def send_described(self, examples: int, *, seed: int) -> int:
        """Send what schemathesis makes of the API's description; returns how many requests."""
        import schemathesis  # noqa: PLC0415 - not needed for malformed requests
        from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415
        from hypothesis import seed as seeded  # noqa: PLC0415
        from hypothesis.errors import Unsatisfiable  # noqa: PLC0415

        before = self.statuses.total()
        schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json")
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        plain = settings(
            max_examples=max(1, examples // 2),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        for found in schema.get_all_operations():
            for mode in modes if found.ok().body or found.ok().path_parameters else modes[:1]:
                strategy = found.ok().as_strategy(generation_mode=mode)
                with suppress(Unsatisfiable):  # nothing goes against what says little
                    seeded(seed)(plain(given(case=strategy)(self._send_case)))()
        return self.statuses.total() - before

    def _send_case(self, case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = MODEL  # else every request ends at the name of its model
        try:
            reply = case.call(base_url=self.url, timeout=self.seconds)
            status: int | None = reply.status_code
        except OSError as error:  # what requests raises
            status, reply = self._no_reply(error), None
        self._count(status, repr(case.body).encode("utf-8", "replace"), reply)

    def _send(self, asked: Asked) -> httpx.Response | None:
        try:
            reply = self._client.post(
                self.url + asked.path,
                content=asked.body,
                headers={name: value.encode("latin-1") for name, value in asked.headers.items()},
            )
        except httpx.HTTPError as error:
            self._no_reply(error)
            return None
        return reply

    def _send_raw(self, body: bytes) -> int | None:
        place = self.url.removeprefix("http://").split(":")
        try:
            with socket.create_connection((place[0], int(place[1])), timeout=10) as connection:
                connection.sendall(body)
                connection.settimeout(RAW_SECONDS)
                head = connection.recv(64).split()
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            return None
        return int(head[1]) if len(head) > 1 and head[1].isdigit() else None

    def _no_reply(self, error: Exception) -> None:
        if not self._has_crashed():
            self.hung += 1
            self.failures.append(f"no reply: {error!r}"[:200])

    def _count(self, status: int | None, body: bytes, reply: Any = None) -> None:
        self.statuses[status or 0] += 1
        if status is not None and status >= 500 and not _is_rightly_unavailable(reply):
            self.server_errors += 1
            self.failures.append(f"{status}: {body[:200]!r}")
        if self._has_crashed():
            self.crashes = 1

    def _has_crashed(self) -> bool:
        return any(server.has_ended() for server in self.servers)


def _is_rightly_unavailable(reply: Any) -> bool:
    """Whether a controller has not got what was asked for: a model, or so many workers."""
    if reply is None or reply.status_code != UNAVAILABLE_STATUS:
        return False
    text = reply.content.decode("utf-8", "replace")
    return f"asked for, here is {MODEL}." in text or '"workers":1' in text


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def measure(
    *, through: str, bodies: int, examples: int, seed: int, seconds: float
) -> dict[str, Any]:
    """Send everything and count."""
    with tempfile.TemporaryDirectory() as name, running_service(Path(name), through) as servers:
        fuzzer = Fuzzer(servers, seconds=seconds)
        fuzzer.send_malformed(bodies, seed=seed)
        described = fuzzer.send_described(examples, seed=seed) if not fuzzer.crashes else 0
        alive = all(_answers(f"{server.url}/health") for server in servers)
    statuses = fuzzer.statuses
    return {
        "through": through,
        "server_errors": fuzzer.server_errors,
        "hung": fuzzer.hung + (not alive and not fuzzer.crashes),
        "crashes": fuzzer.crashes,
        "bodies": bodies,
        "described": described,
        "statuses": {str(status): statuses[status] for status in sorted(statuses)},
        "failures": fuzzer.failures[:20],
        "seed": seed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line (the only form)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--through", choices=["worker", "controller"], default="worker")
    parser.add_argument("--bodies", type=int, default=2000, help="malformed requests")
    parser.add_argument("--examples", type=int, default=60, help="of each endpoint's description")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="then a request counts as hung")
    asked = parser.parse_args(arguments)
    measured = measure(
        through=asked.through,
        bodies=asked.bodies,
        examples=asked.examples,
        seed=asked.seed,
        seconds=asked.seconds,
    )
    print_line("fuzz_api", measured, store=asked.store, file="fuzz_api")
    return int(any(measured[key] for key in ("server_errors", "hung", "crashes")))


if __name__ == "__main__":
    sys.exit(main())
