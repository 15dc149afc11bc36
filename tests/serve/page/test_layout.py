"""The page as a whole in a browser: languages, widths, tabs, what it loads, what it says."""

import signal
import time

import pytest

from mllm_npu.serve.launching import free_ports

KEY = "a-key-of-the-tests"
AREAS = ("chat", "draw", "edit", "compare")


def test_nothing_is_fetched_from_elsewhere(visit, stage):
    page = visit("/")
    for area in AREAS:
        page.go_to(area)
    page.tab.rest(0.5)
    asked = [url for url in page.tab.requested if not url.startswith(("data:", "blob:"))]
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(stage.page.url + "/")] == []
    assert page.tab.value("document.querySelector('footer')?.offsetHeight || 0") == 0


def test_the_language_follows_the_browser_and_can_be_chosen(visit):
    page = visit("/", language="zh-CN,zh,en")
    assert page.tab.value("location.pathname") == "/zh/"
    assert page.tab.value("document.documentElement.lang") == "zh-CN"
    shown = page.text("body")
    assert all(word in shown for word in ("对话", "绘图", "改图", "对比", "设置", "撤销"))
    page.go_to("edit")
    assert "点击上传" in page.text("#edit-picture")  # Gradio's own words
    page.go_to("chat")
    page.ask("hello")
    page.wait_reply("alpha heard hello")
    page.click("#heading nav a")
    page.wait("location.pathname === '/en/'")
    page.wait_until_ready()
    page.wait_reply("alpha heard hello")  # the chat has come along
    assert "Settings" in page.text("body")
    page.tab.go(page.tab.value("location.origin") + "/")
    page.wait("location.pathname === '/en/'")


@pytest.mark.parametrize("path", ["/en/", "/zh/"])
def test_a_phone_does_not_scroll_sideways(visit, path):
    page = visit(path, phone=True)
    page.ask("markup " + "verylongword" * 30)
    page.wait_reply("strong")
    page.click("#chat-settings button")
    for area in AREAS:
        page.go_to(area)
        width = page.tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)")
        assert width == 390, area
    wide = page.tab.value(
        "[...document.querySelectorAll('button, input, textarea')].filter((e) => e.offsetParent "
        "&& (e.getBoundingClientRect().right > 391 || e.getBoundingClientRect().left < -1))"
        ".map((e) => e.outerHTML.slice(0, 120))"
    )
    assert wide == []


def test_tabs_have_chats_of_their_own_and_a_reload_keeps_them(visit):
    first = visit()
    first.ask("hello first")
    first.wait_reply("hello first")
    first.wait_idle()
    second = visit(like=first.tab)
    assert second.replies() == []
    second.ask("hello second")
    second.wait_reply("hello second | 1 turns")
    first.tab.reload()
    first.wait("document.readyState === 'complete'")
    first.wait_reply("hello first")
    first.wait_until_ready()
    assert len(first.replies()) == 1
    first.ask("hello again")
    first.wait_reply("hello again | 3 turns")


def test_a_controller_is_waited_for_a_key_is_asked_for_and_a_stop_is_soon(visit, stage, tmp_path):
    port = free_ports(1)[0]
    asking = stage.start_page("asking", f"http://127.0.0.1:{port}")
    stage.wait_for_page(asking)
    page = visit(page=asking, ready=False)
    page.tab.wait_text("#notice", f"The controller at http://127.0.0.1:{port} does not answer.")
    page.ask("hello")
    page.tab.wait_text("#chat-notice", "No model is here yet.")
    (tmp_path / "keys").write_text(KEY)
    command = ["-m", "mllm_npu.serve.controller", "--api-keys", tmp_path / "keys"]
    closed = stage.servers.start("closed", command, port=port)
    closed.wait_until(lambda it: it.get("/health").status_code == 200, "health")
    page.tab.wait_text("#notice", "The controller wants an API key")
    page.tab.fill("#key input", KEY)
    page.tab.press()
    page.tab.wait_text("#notice", "No model is here yet.")
    closed.end()
    end_while_it_is_looked_at(asking)


def end_while_it_is_looked_at(server):
    """A page that is open in a browser keeps a connection, which must not hold the end up."""
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - began < 10


def test_many_stream_at_once_and_nobody_waits_for_another(visit, stage):
    slow = [visit() for _ in range(2)]
    for page in slow:
        page.ask("slow")
    for page in slow:
        page.wait_reply("w1 ")
    quick = visit()
    quick.ask("hello")
    quick.wait_reply("alpha heard hello")
    assert stage.running() == 2
    for page in slow:
        page.click("#chat-stop")
        page.wait_idle()
