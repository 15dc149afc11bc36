"""A service on a real Ray of this machine: two models, load, deaths, updates, and its end."""

import base64
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder
from mllm_npu.serve.ray_config import render_config
from mllm_npu.serve.ray_options import RayPlan

pytest.importorskip("ray", reason="ray is not installed: pip install 'mllm-npu[ray]'")
grpc = pytest.importorskip("grpc")
pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).with_name("deploy_ray.py")
COMMAND = [sys.executable, "-m", "mllm_npu.cli", "serve", "--ray"]


def _load_harness():
    """The file beside this one, which has no name among the tests."""
    file = Path(__file__).with_name("ray_service.py")
    spec = importlib.util.spec_from_file_location("ray_service", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


harness = _load_harness()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Two models that play; the tests of this module use it one after another."""
    started = harness.Service(tmp_path_factory.mktemp("ray"))
    yield started
    started.client.close()
    started.end()


def test_the_model_is_chosen_by_its_name(service):
    assert [model.id for model in service.client.models.list()] == ["a", "b"]
    assert service.client.models.retrieve("b").version == "1"
    assert {service.who(name)["name"] for name in "ab"} == {"a", "b"}
    with pytest.raises(openai.NotFoundError, match="here is a, b"):
        service.ask("c")
    messages = [{"role": "user", "content": "{}"}]
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        service.client.chat.completions.create(model="a", messages=messages, max_tokens=0)
    assert service.replicas() == service.replicas("b") == 1


def test_pieces_come_when_they_are_made(service):
    pieces = list(service.stream(pieces=8, pause=0.3))
    assert "".join(text for text, _ in pieces).endswith("} 0 1 2 3 4 5 6 7")
    times = [moment for text, moment in pieces if text.strip().isdigit()]
    assert times[-1] - times[0] > 1  # of the 2.1 s that it takes to make them


def test_the_originals_chunks_and_pictures_come_too(service):
    body = {"input_text": json.dumps({"pieces": 2, "picture": True}), "model": "b"}
    headers = {"authorization": f"Bearer {harness.KEY}"}
    reply = httpx.post(
        service.url + "/worker_generate", json=body, headers=headers, trust_env=False, timeout=60
    )
    chunks = [json.loads(chunk) for chunk in reply.content.split(b"\0")[:-1]]
    assert chunks[0]["error_code"] == 0
    picture = Image.open(io.BytesIO(base64.b64decode(chunks[-1]["image"])))
    assert picture.size == (400, 400)
    assert len(reply.headers.get_list("x-request-id")) == 1
    page = httpx.get(service.url + "/docs", trust_env=False, timeout=60)
    assert "/v1/images/edits" in page.text


def test_a_client_that_goes_frees_its_slot(service):
    pieces = service.stream(pieces=1000, pause=0.1)
    next(pieces)
    pieces.close()
    harness.wait_until(lambda: service.who()["cancelled"] == 1, "the end of a stream")
    with pytest.raises(openai.APITimeoutError):
        service.client.with_options(timeout=1).chat.completions.create(
            model="a", messages=[{"role": "user", "content": '{"pieces": 100, "pause": 1}'}]
        )
    harness.wait_until(lambda: service.who()["cancelled"] == 2, "the end of a reply")


def test_keys_open_it_and_are_shown_nowhere(service):
    stranger = service.client.with_options(api_key="another-key")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    shown = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in service.processes())
    assert harness.KEY.encode() not in shown
    logs = Path(service.addresses["logs"])
    said = b"".join(file.read_bytes() for file in logs.rglob("*") if file.is_file())
    assert harness.KEY.encode() not in said


def test_other_machines_reach_none_of_it_without_a_token(service):
    listening = service.listening()
    assert int(service.url.rpartition(":")[2]) in listening
    open_ones = {
        port: name
        for port, (address, name) in listening.items()
        if not address.endswith(harness.LOOPBACK)
    }
    assert {name for name in open_ones.values() if not name.startswith("ray::ServeRepli")} == set()
    for port in open_ones:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                call(b"", timeout=60)


def test_replicas_that_die_or_fail_are_replaced(service):
    killed, failed = service.who()["pid"], service.who("b")["pid"]
    service.ask("b", fail=True)
    os.kill(killed, signal.SIGKILL)
    assert service.who()["pid"] != killed

    def is_replaced():
        with suppress(openai.InternalServerError):
            return service.who("b")["pid"] != failed
        return False

    harness.wait_until(is_replaced, "another replica")


def test_replicas_come_with_load(service):
    with harness.load(service, "bbbbbb", pieces=5, pause=0.1) as answers:
        harness.wait_until(lambda: service.replicas("b") == 2, "a second replica")
    assert set(answers) == {"1"}


def test_figures_are_with_those_of_ray(service):
    service.ask()
    wanted = re.compile(r'^ray_mllm_npu_new_tokens_total\{.*deployment="a".*\} [1-9]', re.MULTILINE)

    def is_told(port):
        with suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{port}/metrics"
            return wanted.search(httpx.get(url, trust_env=False, timeout=5).text)
        return False

    ports = list(service.listening())
    harness.wait_until(lambda: any(map(is_told, ports)), "the figures")


def test_replicas_go_when_it_has_gone(service):
    harness.wait_until(lambda: service.replicas("b") == 1, "the end of the second replica")


def test_an_update_loses_no_request_even_where_a_model_cannot_be_loaded(service):
    long = service.stream(pieces=20, pause=0.4)
    assert '"version": "1"' in next(text for text, _ in long if text)
    service.write_version("2")
    (service.folder / "b" / "broken").touch()
    with harness.load(service, "ab", pieces=2, pause=0.1) as answers:
        updated = service.update()
        harness.wait_until(lambda: service.who()["version"] == "2", "the new version of a")
    assert updated.returncode == 2
    said = "ServingError: The service was not started. b: ConfigError: b is broken. Mend it."
    assert said in updated.stderr
    assert "What ran there before runs on." in updated.stderr
    assert service.who("b")["version"] == "1"
    assert set(answers) == {"1", "2"}
    assert [text for text, _ in long][-2:] == [" 19", ""]


def test_it_is_taken_away_on_request(service):
    pieces = service.stream(pieces=10, pause=0.3)
    next(pieces)
    stopped = service.command(*COMMAND, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped" in stopped.stderr
    assert [text for text, _ in pieces][-2:] == [" 9", ""]
    with pytest.raises(openai.NotFoundError):
        service.ask()


@pytest.fixture
def deployed(service, world, tmp_path):
    """A real model, put there by a configuration file as the command prints it."""
    config = load_config("training", [f"world_dir={world}", "name=tiny"])
    save_model_folder(build_model(config), config, tmp_path / "model")
    plan = RayPlan(models={"tiny": str(tmp_path / "model")}, api_keys=str(service.keys))
    (tmp_path / "config.yaml").write_text(render_config(plan, host="127.0.0.1", port=1))
    deploy = [sys.executable, DEPLOY, service.addresses["ray"], tmp_path / "config.yaml"]
    subprocess.run(deploy, check=True, timeout=harness.SECONDS)


def test_a_real_model_answers_until_the_end(service, deployed):
    assert [model.id for model in service.client.models.list()] == ["tiny"]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "draw a seven"}], "seed": 1}
    drawing = {"images": "force", "image_steps": 2}
    reply = service.client.chat.completions.create(**asked, max_tokens=4, extra_body=drawing)
    url = reply.choices[0].message.images[0]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert picture.size == (16, 16)
    processes = service.processes()
    long = {"images": "force", "image_steps": 100}
    pieces = service.client.chat.completions.create(
        **asked, max_tokens=4, stream=True, extra_body=long
    )
    next(iter(pieces))
    os.killpg(service.process.pid, signal.SIGINT)  # as Ctrl-C does
    assert any(getattr(piece.choices[0].delta, "images", None) for piece in pieces)
    assert service.process.wait(harness.SECONDS) == 0, service.log.read_text()
    assert "Traceback" not in service.log.read_text()
    harness.wait_until(
        lambda: not any(map(harness.is_running, processes)), "the end of all processes"
    )
