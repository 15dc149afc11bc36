"""Refusals have the form that the clients of a path read, whole or as the end of a reply."""

import json

import pytest

from mllm_npu.serve.controller_replies import (
    ORIGINAL_FAILED,
    ORIGINAL_NO_WORKER,
    Reason,
    cut_message,
    explain,
    refuse,
)

CHAT, ORIGINAL = "/v1/chat/completions", "/worker_generate"


@pytest.mark.parametrize(
    ("reason", "status", "retry_after"),
    [(Reason.NO_WORKER, 503, 5), (Reason.BROKEN, 502, 5), (Reason.LATE, 504, None)],
)
def test_each_reason_has_its_status(reason, status, retry_after):
    error = explain(reason)
    assert (error.status, error.retry_after, error.code) == (status, retry_after, reason.value)
    assert refuse(CHAT, error).status_code == status


@pytest.mark.parametrize(
    ("model", "offered", "message"),
    [
        ("a", ["b", "c"], "Model 'a' was asked for, here is b, c. Name one of these."),
        ("a", [], "Model 'a' was asked for, no worker is here. Start a worker"),
        (None, [], "A model was asked for, no worker is here. Start a worker"),
        (None, ["b"], "A model was asked for, here is b. Start a worker"),
        ("x" * 300, ["b"], f"Model '{'x' * 100}' was"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(model, offered, message):
    error = explain(Reason.NO_WORKER, model=model, offered=offered)
    assert error.message.startswith(message)
    assert error.param == ("model" if model else None)


def test_the_originals_clients_get_a_chunk():
    for reason, number in ((Reason.NO_WORKER, ORIGINAL_NO_WORKER), (Reason.LATE, ORIGINAL_FAILED)):
        for path in (ORIGINAL, "/generate"):
            response = refuse(path, explain(reason))
            chunk, end = response.body.split(b"\0")
            assert end == b""
            said = json.loads(chunk)
            assert said["error_code"] == number
            assert said["text"] == said["error"]["message"]
            assert response.media_type == "application/octet-stream"


def test_an_event_stream_ends_with_an_error_that_stands_alone():
    for last in (b"\n", b"x"):
        said = cut_message(CHAT, "text/event-stream; charset=utf-8", Reason.BROKEN, last_byte=last)
        blank, error, done, end = said.split(b"\n\n")
        assert (blank, done, end) == (b"", b"data: [DONE]", b"")
        assert json.loads(error[6:])["error"]["code"] == "worker_failed"


@pytest.mark.parametrize(("last", "number"), [(b"\0", 0), (b"", 0), (b"}", 1)])
def test_a_chunk_that_was_cut_is_closed_first(last, number):
    said = cut_message(ORIGINAL, "application/json", Reason.LATE, last_byte=last)
    assert said.count(b"\0") == number + 1
    assert said.startswith(b"\0") is bool(number)


def test_a_reply_without_room_says_nothing():
    assert cut_message(CHAT, "application/json", Reason.BROKEN, last_byte=b"{") is None
