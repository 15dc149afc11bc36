"""The guard: only files of the page are named, and nothing is fetched."""

import json

import httpx
import pytest

from mllm_npu.serve.page.guard import FileGuard

JOIN = "/en/gradio_api/queue/join"


@pytest.fixture
def send(tmp_path, run):
    """Send a request through a guard to an app that gives the body back."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to("/etc/passwd")

    async def app(scope, receive, send):
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    def send_it(method, path, content=b""):
        guard = FileGuard(app, folders=[inside], max_bytes=10_000)
        transport = httpx.ASGITransport(guard)

        async def ask():
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, content=content)

        return run(ask())

    return send_it


def body(path, *, deep=False):
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = [{"text": "a", "files": [named]}] if deep else [named]
    return json.dumps({"data": data, "fn_index": 1}).encode()


@pytest.mark.parametrize("deep", [False, True])
def test_files_of_the_page_pass_and_the_body_arrives(send, tmp_path, deep):
    sent = body(str(tmp_path / "inside" / "a.png"), deep=deep)
    reply = send("POST", JOIN, sent)
    assert (reply.status_code, reply.content) == (200, sent)
    assert send("POST", JOIN, json.dumps({"data": [None, "/etc/passwd"]}).encode()).is_success
    assert send("POST", "/en/gradio_api/reset").is_success


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "inside/../../etc/passwd",
        "http://192.0.2.1/a.png",
        "https://192.0.2.1/a.png",
        "file:///etc/passwd",
        "",
        "a\0b",
        7,
        ["/etc/passwd"],
    ],
)
def test_other_files_do_not(send, path):
    assert send("POST", JOIN, body(path)).status_code == 400
    assert send("POST", "/en/gradio_api/run/predict", body(path, deep=True)).status_code == 400


def test_neither_do_links_out_of_the_folder_nor_lists_nor_nonsense(send, tmp_path):
    assert send("POST", JOIN, body(str(tmp_path / "inside" / "link"))).status_code == 400
    assert send("POST", JOIN, body(str(tmp_path / "inside" / ".." / "x"))).status_code == 400
    assert send("POST", JOIN, b'[{"path": "/etc/passwd"}]').status_code == 400
    assert send("POST", JOIN, b'{"path": ').status_code == 400
    assert send("POST", JOIN, b"[" * 9_000).status_code == 400


def test_long_requests_do_not_but_uploads_may_be_long(send):
    assert send("POST", JOIN, b'"' + b"x" * 10_000 + b'"').status_code == 413
    assert send("POST", "/en/gradio_api/upload", b"x" * 20_000).is_success


def test_nothing_is_fetched(send):
    assert send("GET", "/en/gradio_api/file=http://192.0.2.1/").status_code == 404
    assert send("GET", "/en/gradio_api/file=https://192.0.2.1/").status_code == 404
    assert send("GET", "/en/gradio_api/proxy=http://192.0.2.1/").status_code == 404
    assert send("GET", "/en/gradio_api/file=/tmp/a.png").is_success
