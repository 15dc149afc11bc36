"""What is added to Gradio's page."""

import json

import pytest

from mllm_npu.serve.page.head import POLICY, in_language
from mllm_npu.serve.page.words import CHINESE, ENGLISH


@pytest.fixture(scope="module")
def get(stage):
    return stage.page.get


def test_the_first_page_leads_to_a_language(get):
    page = get("/")
    assert page.status_code == 200
    assert all(f'href="{code}/"' in page.text for code in ("en", "zh"))


@pytest.mark.parametrize(("path", "locale"), [("/en/", "en"), ("/zh/", "zh-CN")])
def test_each_language_tells_the_browser(get, path, locale):
    page = get(path)
    assert page.status_code == 200
    assert f'lang="{locale}"' in page.text
    assert page.text.count("<head><script>") == 1
    assert "content-encoding" not in page.headers


@pytest.mark.parametrize("path", ["/", "/en/", "/zh/config", "/nothing"])
def test_a_browser_may_load_nothing_from_elsewhere(get, path):
    headers = get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert "http:" not in POLICY
    assert "*" not in POLICY


def test_only_the_page_itself_is_changed():
    page = '<html lang="en"><head></head><p lang="en"></p></html>'
    assert in_language(page, CHINESE).startswith('<html lang="zh-CN"><head><script>')
    assert in_language(page, ENGLISH).endswith('</head><p lang="en"></p></html>')
    assert json.dumps("zh-CN") in in_language(page, CHINESE)
