"""Only workers become workers: by the token, or by being on this machine."""

import asyncio

import pytest
from starlette.requests import Request

from mllm_npu.errors import ConfigError
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.controller_token import TokenCheck, is_loopback

TOKEN = "a-token-of-the-tests"


def check(token, *, host="10.0.0.9", authorization=None):
    headers = [(b"authorization", authorization.encode())] if authorization else []
    client = (host, 1234) if host else None
    request = Request({"type": "http", "headers": headers, "client": client})
    asyncio.run(TokenCheck(token)(request))


@pytest.mark.parametrize("kind", ["Bearer", "bearer"])
def test_the_token_opens(kind):
    check(TOKEN, authorization=f"{kind} {TOKEN}")


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer ", "Bearer wrong-token", f"Basic {TOKEN}", TOKEN]
)
def test_nothing_else_opens_also_on_this_machine(authorization):
    with pytest.raises(ApiError, match="MLLM_NPU_WORKER_TOKEN") as caught:
        check(TOKEN, host="127.0.0.1", authorization=authorization)
    assert caught.value.status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_this_machine_is_trusted(host):
    check(None, host=host)


@pytest.mark.parametrize("host", ["10.0.0.9", "::ffff:10.0.0.9", "", "example.org"])
def test_without_a_token_others_are_not(host):
    with pytest.raises(ApiError, match="no token") as caught:
        check(None, host=host)
    assert caught.value.status == 403


def test_a_token_must_be_a_secret():
    with pytest.raises(ConfigError):
        TokenCheck("short")


def test_what_loopback_is():
    assert is_loopback("localhost")
    assert is_loopback("127.8.8.8")
    assert not is_loopback("128.0.0.1")
