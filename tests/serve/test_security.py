"""Keys and body limits, on a real server and alone."""

import hmac
import socket

import httpx
import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve import security
from mllm_npu.serve.security import ApiKeys, read_keys, read_token

KEY, TOKEN = "a-key-for-tests", "a-token-for-tests"
ASK = {"model": "play", "messages": [{"role": "user", "content": "hi"}]}


def test_keys():
    keys = ApiKeys([KEY, " other-key "])
    assert keys
    assert keys.admit(KEY)
    assert keys.admit("other-key")
    assert not keys.admit("")
    assert not keys.admit(KEY[:-1])
    assert not keys.admit("\ud800")
    assert not ApiKeys()
    assert not ApiKeys([" ", ""])


def test_every_key_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest

    def compare(left, right):
        compared.append((left, right))
        return real(left, right)

    keys = ApiKeys([KEY, "other-key", "third-key"])
    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    assert keys.admit(KEY)
    assert len(compared) == 3
    assert {len(side) for pair in compared for side in pair} == {32}


def test_a_key_that_is_no_secret_is_refused():
    with pytest.raises(ConfigError, match="8 characters") as caught:
        ApiKeys(["short"])
    assert "short" not in str(caught.value).split()


def test_keys_of_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key\n\n second-key \n")
    variables = {"MLLM_NPU_API_KEYS": "third-key, fourth-key,"}
    assert set(read_keys(file, variables=variables)) == {
        "first-key",
        "second-key",
        "third-key",
        "fourth-key",
    }
    assert read_keys(variables={}) == ()


@pytest.mark.parametrize("content", [None, "", "# none\n", b"\xff\xfe"])
def test_a_file_without_keys_opens_nothing(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match="keys"):
        read_keys(file, variables={})


def test_tokens():
    assert read_token("given", variables={"MLLM_NPU_WORKER_TOKEN": "other"}) == "given"
    assert read_token(None, variables={"MLLM_NPU_WORKER_TOKEN": "other"}) == "other"
    assert read_token(None, variables={}) is None


@pytest.fixture(scope="module")
def guarded(scripted):
    with scripted.running(
        server={"keys": [KEY], "token": TOKEN}, max_body_bytes=20_000, body_seconds=0.5
    ) as worker:
        yield worker


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer x"}, {"authorization": KEY}])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/v1/chat/completions", "/worker_generate", "/nowhere"]
)
def test_without_a_key_nothing_is_told(guarded, path, header):
    reply = httpx.post(guarded.url + path, headers=header, json=ASK)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [KEY, TOKEN])
def test_a_key_or_the_token_of_the_controller_opens(guarded, key):
    header = {"authorization": f"Bearer {key}"}
    reply = httpx.post(f"{guarded.url}/v1/chat/completions", headers=header, json=ASK)
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/docs", "/openapi.json"])
def test_what_is_open(guarded, path):
    reply = httpx.get(guarded.url + path)
    assert reply.status_code == 200
    assert KEY not in reply.text
    assert TOKEN not in reply.text


def pieces(number):
    for _ in range(number):
        yield b" " * 1000


@pytest.mark.parametrize("content", [b" " * 20_001, pieces(40)])
def test_a_body_that_is_too_long_is_a_413(guarded, content):
    reply = httpx.post(
        f"{guarded.url}/v1/chat/completions",
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        content=content,
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_does_not_come_is_a_408(guarded):
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", guarded.server.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
