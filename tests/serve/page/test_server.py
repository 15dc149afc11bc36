"""The page as it is served: what it gives and takes, and how it ends."""

import httpx
import pytest

from mllm_npu.serve.page.server import create_page


@pytest.fixture(scope="module")
def get(stage):
    return stage.page.get


def test_the_page_has_no_api_of_its_own_and_reports_nothing(get):
    config = get("/en/config").json()
    visible = [each["api_visibility"] for each in config["dependencies"]]
    assert "public" not in visible
    assert config["analytics_enabled"] is False
    for path in ("/docs", "/openapi.json", "/en/openapi.json"):
        assert get(path).status_code == 404


@pytest.mark.parametrize("place", ["/etc/passwd", "http://192.0.2.1/", "/en/../../etc/passwd"])
def test_files_of_the_machine_are_not_given(get, place):
    assert get(f"/en/gradio_api/file={place}").status_code in (403, 404)


@pytest.mark.parametrize("path", ["/etc/passwd", "http://192.0.2.1/a.png"])
def test_files_of_the_machine_are_not_taken(stage, path):
    body = {"data": [{"path": path}], "fn_index": 0, "session_hash": "abc"}
    assert stage.page.post("/en/gradio_api/queue/join", **body).status_code == 400


def test_a_file_that_is_too_long_is_not_taken(stage):
    files = {"files": ("a.png", b"x" * (20 * 2**20 + 1), "image/png")}
    url = stage.page.url + "/en/gradio_api/upload"
    assert httpx.post(url, files=files, trust_env=False, timeout=20).status_code == 413


def test_gradio_checks_files_where_it_is_mounted(make_desk, build):
    app = build(create_page, make_desk())
    mounted = [route.app for route in app.routes if hasattr(route, "app")]
    blocks = [each.get_blocks() for each in mounted if hasattr(each, "get_blocks")]
    assert len(blocks) == 2
    assert all(each.has_launched for each in blocks)
