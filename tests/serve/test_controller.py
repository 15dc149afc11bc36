"""A controller in front of workers, all of them real processes that talk over loopback."""

import json
import signal
import subprocess
import sys
import time

import httpx
import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve import controller as module

CHAT = "/v1/chat/completions"
ORIGINAL = "/worker_generate"


@pytest.fixture(scope="module")
def controller(standing):
    return standing.controller()


@pytest.fixture(scope="module")
def pair(standing, controller):
    """Two workers that nobody harms."""
    return standing.workers(controller, "a", "b")


def test_requests_are_shared_out(controller, pair):
    names = [controller.post(model="tiny").headers["x-worker"] for _ in range(6)]
    assert sorted(names) == ["a", "a", "a", "b", "b", "b"]


def test_a_worker_sees_the_request_and_the_token_but_no_key(controller, pair):
    headers = {"authorization": "Bearer of-a-client", "x-request-id": "mine", "x-extra": "1"}
    reply = controller.post(CHAT, headers=headers, model="tiny", word="wort")
    server = next(each for each in pair if each.name == reply.headers["x-worker"])
    seen = server.seen()
    assert seen["headers"]["authorization"] == "Bearer a-token-of-the-tests"
    assert (seen["headers"]["x-request-id"], seen["headers"]["x-extra"]) == ("mine", "1")
    assert json.loads(seen["body"]) == {"model": "tiny", "word": "wort"}
    assert seen["path"] == CHAT


def test_the_originals_question_goes_to_the_default_model(controller, pair):
    reply = controller.post(
        ORIGINAL, input_text="Hi", image="", image_gen=False, play={"media_type": "text/plain"}
    )
    assert reply.content.endswith(b"\0")
    assert json.loads(reply.content[:-1])["number"] == 0


def test_forms_are_passed_on_whole(controller, pair):
    picture = bytes(range(256)) * 40
    reply = httpx.post(
        controller.url + "/v1/images/edits",
        data={"model": "tiny", "prompt": "add a hat"},
        files={"image": ("a.png", picture, "image/png")},
        trust_env=False,
    )
    assert reply.status_code == 200
    server = next(each for each in pair if each.name == reply.headers["x-worker"])
    assert picture in server.seen()["body"].encode("latin-1")


def test_a_model_that_is_not_there_is_told_with_those_that_are(controller, pair):
    reply = controller.post(model="gpt")
    assert reply.status_code == 503
    error = reply.json()["error"]
    assert "'gpt' was asked for, here is tiny" in error["message"]
    assert (error["code"], error["param"]) == ("no_worker", "model")
    assert reply.headers["retry-after"] == "5"
    chunk = controller.post(ORIGINAL, model="gpt", input_text="Hi")
    assert chunk.content.endswith(b"\0")
    assert json.loads(chunk.content[:-1])["error_code"] == 2


def test_with_a_wrong_token_nobody_becomes_a_worker(standing, controller, pair):
    for token in ("another-token-of-the-tests", None):
        worker = standing.worker(controller, "wrong", token=token)
        worker.wait_until(lambda it: it.get("/health").status_code == 200, "health")
    time.sleep(1)
    assert controller.get("/health").json()["workers"] == 2


def test_models_and_versions_live_side_by_side(servers):
    controller = servers.controller("--default-model", "large")
    servers.worker(controller, "old", "--models", "tiny", "--version", "1.9")
    servers.worker(controller, "new", "--models", "tiny", "--version", "1.10")
    large = servers.worker(controller, "large", "--models", "large")
    servers.wait_for(controller, 3)

    def answers(model):
        return controller.post(**({"model": model} if model else {})).headers["x-worker"]

    assert [answers("tiny") for _ in range(2)] == ["new", "new"]
    assert answers("tiny@1.9") == "old"
    assert answers("large") == answers(None) == "large"
    assert json.loads(large.seen()["body"])["model"] == "large"
    models = {card["id"]: card["version"] for card in controller.get("/v1/models").json()["data"]}
    assert models == {"tiny": "1.10", "tiny@1.9": "1.9", "tiny@1.10": "1.10", "large": "1"}
    assert controller.get("/v1/models/tiny@1.9").json()["version"] == "1.9"
    assert controller.get("/v1/models/none").status_code == 404


def test_sigterm_lets_replies_end_and_takes_nothing_new(servers, read_events):
    controller = servers.controller()
    servers.workers(controller, "a")
    with controller.stream(model="tiny", play={"chunks": 6, "pause": 0.3}) as reply:
        texts = reply.iter_text()
        text = next(texts)
        controller.signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            controller.post(model="tiny")
        text += "".join(texts)
    assert len(read_events(text)) == 6
    assert controller.process.wait(10) == 0


def test_keys_open_the_controller_to_clients_and_the_token_to_workers(servers, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("# of the tests\nkey-of-a-client\n")
    controller = servers.controller("--api-keys", keys)
    servers.workers(controller, "a")
    assert controller.post(model="tiny").status_code == 401
    wrong = {"authorization": "Bearer a-token-of-the-tests"}
    assert controller.post(CHAT, headers=wrong, model="tiny").status_code == 401
    right = {"authorization": "Bearer key-of-a-client"}
    assert controller.post(CHAT, headers=right, model="tiny").status_code == 200
    assert controller.post("/register", headers=right).status_code == 401
    assert controller.get("/v1/models").status_code == 401
    for path in ("/workers", "/metrics", "/list_models", "/redoc"):
        assert controller.get(path).status_code == 401


def test_with_keys_the_description_of_the_api_stays_open_and_holds_none(servers, monkeypatch):
    monkeypatch.setenv("MLLM_NPU_API_KEYS", "key-of-a-client")
    controller = servers.controller()
    page, described = controller.get("/docs"), controller.get("/openapi.json")
    assert (page.status_code, described.status_code) == (200, 200)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    for told in (page.text, described.text):
        assert "/v1/chat/completions" in told
        assert "key-of-a-client" not in told
        assert "a-token-of-the-tests" not in told


def test_a_body_that_is_too_long_is_refused_before_it_is_read(servers):
    controller = servers.controller("--max-body-mb", "0.001")
    assert controller.post(model="tiny", word="x" * 2000).status_code == 413

    def pieces():
        for _ in range(100):
            yield b"x" * 100

    reply = httpx.post(controller.url + CHAT, content=pieces(), trust_env=False)
    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_taken_port_is_one_line(controller):
    port = controller.url.rpartition(":")[2]
    command = [sys.executable, "mllm_npu/serve/controller.py", "--port", port]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ConfigError: Port {port} of 127.0.0.1 was asked for")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--heartbeat", "--timeout", "--max-body-mb"])
def test_numbers_that_cannot_be_are_refused(option):
    asked = module.read_arguments([option, "0"])
    with pytest.raises(ConfigError, match=f"{option}=0"):
        module.build_app(asked)


def test_a_worker_of_another_protocol_is_refused(controller):
    said = {
        "url": "http://127.0.0.1:1",
        "models": [{"id": "tiny"}],
        "limits": dict.fromkeys(
            ["max_body_bytes", "max_images", "max_pixels", "max_new_tokens", "max_queue"], 1
        ),
        "software": "9",
        "protocol": 99,
    }
    headers = {"authorization": "Bearer a-token-of-the-tests"}
    reply = controller.post("/register", headers=headers, **said)
    assert reply.status_code == 400
    assert "protocol 99" in reply.json()["error"]["message"]
    assert controller.post("/register", headers=headers, **said, more=1).status_code == 400
