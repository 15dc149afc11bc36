"""Refusals in OpenAI's form."""

import json

import pytest

from mllm_npu.serve.api_errors import (
    LONGEST_MESSAGE,
    ApiError,
    describe_invalid,
    error_body,
    error_kind,
    to_json,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (418, "invalid_request_error"),
        (429, "busy_error"),
        (500, "server_error"),
        (503, "unavailable_error"),
        (599, "server_error"),
    ],
)
def test_every_status_has_a_kind(status, kind):
    assert error_kind(status) == kind


def test_the_form():
    body = error_body("No.", status=400, param="n", code="x")
    assert body == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": "n", "code": "x"}
    }


def test_a_long_message_is_cut():
    said = error_body("x" * 10_000, status=400)["error"]["message"]
    assert len(said) == LONGEST_MESSAGE + 1


def test_headers():
    assert ApiError("x").headers() == {}
    assert ApiError("x", status=429, retry_after=2).headers() == {"retry-after": "2"}
    assert ApiError("x", status=401).headers() == {"www-authenticate": "Bearer"}


def test_half_a_character_can_be_written():
    assert json.loads(to_json({"a": "\ud800"})) == {"a": "\ud800"}


def test_what_is_invalid_is_named():
    first = {"loc": ("body", "messages", 0, "role"), "msg": "Field required", "type": "missing"}
    assert describe_invalid([first, first]) == (
        "messages.0.role: Field required. (1 more)",
        "messages.0.role",
    )
    extra = {"loc": ("body", "tempo"), "msg": "Extra", "type": "extra_forbidden"}
    assert "no such parameter" in describe_invalid([extra])[0]
    broken = {"loc": ("body", 17), "msg": "JSON decode error", "type": "json_invalid"}
    assert describe_invalid([broken]) == ("The body: JSON decode error.", None)
    assert describe_invalid([])[1] is None
