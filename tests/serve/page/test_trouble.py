"""Trouble: what statuses, streams and the network mean."""

import httpx
import pytest

from mllm_npu.serve.api_errors import error_body
from mllm_npu.serve.page.trouble import (
    AskError,
    Trouble,
    explained,
    message_of,
    of_status,
    of_stream,
    parse,
)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (400, Trouble.REFUSED),
        (401, Trouble.KEY),
        (404, Trouble.REFUSED),
        (413, Trouble.REFUSED),
        (429, Trouble.BUSY),
        (500, Trouble.FAILED),
        (502, Trouble.FAILED),
        (503, Trouble.ABSENT),
        (504, Trouble.LATE),
    ],
)
def test_a_status_has_its_kind_and_the_servers_words(status, trouble):
    error = of_status(status, b'{"error": {"message": "Because."}}')
    assert (error.trouble, error.said) == (trouble, "Because.")
    assert of_status(status, b"<html>").said == f"HTTP {status}"


@pytest.mark.parametrize(
    ("status", "trouble"),
    [(429, Trouble.BUSY), (400, Trouble.REFUSED), (504, Trouble.LATE), (502, Trouble.FAILED)],
)
def test_a_failure_inside_a_stream_has_the_same_kinds(status, trouble):
    assert of_stream(error_body("Because.", status=status)).trouble is trouble


def test_words_are_found_in_every_form():
    assert message_of({"error": {"message": "a"}}) == "a"
    assert message_of({"error": "b"}) == "b"
    assert message_of({"error": {"message": 3}}) == message_of({}) == ""
    assert len(of_status(400, b'{"error": "%s"}' % (b"x" * 9999)).said) == 600


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"3", b"[" * 99999])
def test_what_is_no_object_is_an_empty_one(body):
    assert parse(body) == {}


@pytest.mark.parametrize(
    ("raised", "trouble", "said"),
    [
        (httpx.ConnectError("x"), Trouble.AWAY, "http://here"),
        (httpx.ConnectTimeout("x"), Trouble.AWAY, "http://here"),
        (httpx.ReadTimeout("x"), Trouble.LATE, "http://here"),
        (httpx.RemoteProtocolError("gone"), Trouble.CUT, "gone"),
    ],
)
def test_the_network_is_explained(raised, trouble, said):
    with pytest.raises(AskError) as caught, explained("http://here"):
        raise raised
    assert (caught.value.trouble, caught.value.said) == (trouble, said)
