"""A service on a Ray of this machine as the tests use it: the command, a client, its processes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai

PLAY = Path(__file__).with_name("play_ray.py")
KEY = "a-key-of-the-tests"
SECONDS = 120.0
LISTENS = "0A"
"""State of a socket in the kernel's tables, as the next one is an address of loopback there."""
LOOPBACK = "0100007F"
OFTEN = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}
SCALING = ["--max-replicas", "2", "--target-requests", "2", "--upscale-delay", "0"]


class Service:
    """The command in a process and a group of its own, and what a client does with it."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "log"
        self.keys = folder / "keys"
        self.keys.write_text(KEY + "\n")
        self.write_version("1")
        command = [sys.executable, PLAY, *self.models(), "--json", "--no-page", "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.options(), "--drain", "20"],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **OFTEN},
                start_new_session=True,
            )
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.addresses = json.loads(line)
        self.url = self.addresses["controller"]
        self.client = openai.OpenAI(base_url=self.addresses["api"], api_key=KEY, max_retries=0)

    def models(self):
        return [f"{name}={self.folder / name}" for name in "ab"]

    def options(self):
        return ["--api-keys", self.keys, *SCALING, "--downscale-delay", "1"]

    def write_version(self, version):
        for name in "ab":
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "version").write_text(version)

    def command(self, *words):
        """The command once more, on the Ray that runs."""
        return subprocess.run(
            [*words, "--ray-address", self.addresses["ray"], "--api-keys", self.keys],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def update(self):
        words = [sys.executable, PLAY, *self.models(), *self.options(), "--drain", "20", "--json"]
        return self.command(*words)

    def ask(self, model="a", **play):
        messages = [{"role": "user", "content": json.dumps(play)}]
        reply = self.client.chat.completions.create(model=model, messages=messages)
        return reply.choices[0].message

    def stream(self, model="a", **play):
        """Pieces of text, and when each came."""
        messages = [{"role": "user", "content": json.dumps(play)}]
        asked = {"model": model, "messages": messages, "stream": True}
        with self.client.chat.completions.create(**asked) as pieces:
            for piece in pieces:
                yield piece.choices[0].delta.content or "", time.monotonic()

    def who(self, model="a", **play):
        """Who answers: process, version, how many replies it has called off."""
        return json.loads(re.match(r"\{.*?\}", self.ask(model, **play).content)[0])

    def replicas(self, model="a"):
        reply = httpx.get(self.url + "/health", trust_env=False, timeout=SECONDS)
        assert reply.status_code == 200
        return reply.json()["replicas"][model]

    def processes(self):
        """Process ids of the command and all that it has started."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        own = {self.process.pid}
        while more := {pid for pid, parent in found.items() if parent in own} - own:
            own |= more
        return own

    def listening(self):
        """Ports at which these processes listen: the address, as the kernel writes it, and whose.

        Gives ``{port: (address, name of the process)}``.
        """
        owners = {}
        for pid in self.processes():
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    owners[os.readlink(file)] = name
        found = {}
        for table in ("tcp", "tcp6"):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = row.split()[:10]
                if state == LISTENS and (owner := owners.get(f"socket:[{inode}]")):
                    address, _, port = local.rpartition(":")
                    found[int(port, 16)] = address, owner
        return found

    def end(self):
        left = self.processes()
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS)
        for pid in filter(is_running, left):
            os.kill(pid, signal.SIGKILL)
        self.process.stdout.close()


def is_running(pid):
    """Not ended; one that has ended may wait for somebody to ask how."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(is_true, what):
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@contextmanager
def load(service, models, **play):
    """Requests without a pause, a client for each letter; what answered them, or a failure."""
    stopping, answers = threading.Event(), []

    def ask_on(model):
        while not stopping.is_set():
            try:
                answers.append(service.who(model, **play)["version"])
            except openai.OpenAIError as error:
                answers.append(error)

    clients = [threading.Thread(target=ask_on, args=(model,)) for model in models]
    for client in clients:
        client.start()
    try:
        yield answers
    finally:
        stopping.set()
        for client in clients:
            client.join()
