"""The page with all that is behind it, each in a process of its own, and a browser before it."""

import asyncio
import base64
import importlib.util
import io
import json
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from mllm_npu.serve.launching import free_ports
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.models import Models
from mllm_npu.serve.page.pictures import PictureStore
from mllm_npu.serve.page.running import Running
from mllm_npu.serve.page.tabs import Tabs

HERE = Path(__file__).parent
PAGE = ("-m", "mllm_npu.serve.gradio_app")


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stage:
    """A controller, two models behind it, and the page."""

    def __init__(self, servers):
        self.servers = servers
        self.controller = servers.controller("--heartbeat", 1.0)
        self.page = self.start_page("page", self.controller.url)
        first, second = free_ports(2)
        command = [HERE / "page_worker.py", "--controller", self.controller.url, "--ports", second]
        self.worker = servers.start("workers", command, port=first)
        servers.wait_for(self.controller, 2)
        self.wait_for_page(self.page)

    def start_page(self, name, url, *options):
        return self.servers.start(name, [*PAGE, "--controller", url, "--drain", 1, *options])

    def wait_for_page(self, page):
        page.wait_until(lambda it: it.get("/").status_code == 200, "page")

    def running(self):
        """Replies that the first worker is making."""
        return self.worker.get("/health").json()["running"]


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """Started once for all tests of the page."""
    servers = _load("serve_conftest", HERE.parent / "conftest.py").Servers(
        tmp_path_factory.mktemp("page")
    )
    try:
        standing = Stage(servers)
        yield standing
        standing.page.signal(signal.SIGTERM)  # a page that is killed leaves its files
        standing.page.process.wait(20)
    finally:
        servers.end()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser without a window; skips where there is none."""
    browser = _load("browser", HERE / "browser.py")
    program = browser.find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; install it: apt install chromium")
    profile = tmp_path_factory.mktemp("profile")
    running = browser.Browser(program, profile)
    try:
        yield running
    finally:
        running.end()
        shutil.rmtree(profile, ignore_errors=True)


class Visit:
    """A person's tab of the page."""

    def __init__(self, tab):
        self.tab = tab
        self.wait, self.click, self.text = tab.wait, tab.click, tab.text

    def wait_until_ready(self):
        """Until the page knows the models, and this tab has its name."""
        self.wait("document.querySelector('#model input').value === 'alpha'")
        self.wait("sessionStorage.getItem('mllm-npu-tab')")

    def ask(self, text, *, name="chat"):
        self.tab.fill(f"#{name}-box textarea", text)
        self.tab.press()

    def replies(self, chat="#chat-0"):
        """What the model has said, each bubble by itself."""
        return self.tab.value(
            f"[...document.querySelectorAll('{chat} .bot')].map((each) => each.innerText.trim())"
        )

    def wait_reply(self, words, chat="#chat-0"):
        last = f"[...document.querySelectorAll('{chat} .bot')].at(-1).innerText"
        return self.wait(f"{last}.includes({json.dumps(words)}) && {last}")

    def wait_idle(self, name="chat"):
        self.wait(f"document.querySelector('#{name}-stop').disabled")

    def pictures(self, chat="#chat-0"):
        return self.tab.count(f"{chat} .bot img")

    def go_to(self, area):
        """Choose an area by its place."""
        number = ("chat", "draw", "edit", "compare").index(area)
        self.tab.value(f"document.querySelectorAll('#areas button[role=tab]')[{number}].click()")
        wanted = {"chat": "#chat-box", "compare": "#compare-box"}.get(area, f"#{area}-prompt")
        self.wait(f"document.querySelector('{wanted}').getClientRects().length > 0")


@pytest.fixture
def visit(stage, chromium):
    """Opens tabs of the page, and closes them."""
    opened = []

    def open_page(path="/en/", *, page=None, ready=True, **how):
        visit = Visit(chromium.open((page or stage.page).url + path, **how))
        opened.append(visit)
        if ready:
            visit.wait_until_ready()
        return visit

    yield open_page
    failures = [failure for each in opened for failure in each.tab.failures]
    for each in opened:
        each.tab.close()
    assert failures == []


class ScriptedController:
    """Answers as a test writes; an exception is raised where it stands, a number is waited."""

    def __init__(self, *scripts, models=()):
        self.scripts, self.listed = list(scripts), models
        self.requests, self.keys = [], []
        self.open = 0

    async def models(self, *, key=""):
        self.keys.append(key)
        if isinstance(self.listed, Exception):
            raise self.listed
        return tuple(self.listed)

    async def ask(self, request, *, key=""):
        self.requests.append(request)
        self.keys.append(key)
        self.open += 1
        try:
            for event in self.scripts.pop(0):
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, float):
                    await asyncio.sleep(event)
                else:
                    yield event
        finally:
            self.open -= 1


@pytest.fixture
def make_desk(tmp_path):
    """A desk whose controller answers with scripts, one for each question."""

    def make(*scripts, models=()):
        controller = ScriptedController(*scripts, models=models)
        return Desk(
            controller=controller,
            pictures=PictureStore(tmp_path),
            tabs=Tabs(),
            running=Running(),
            models=Models(controller),
        )

    return make


@pytest.fixture
def png():
    """A small picture, encoded."""

    def encode(size=(8, 6), color="red", form="PNG", mode="RGB", **options):
        stream = io.BytesIO()
        Image.new(mode, size, color).save(stream, format=form, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def data_url(png):
    return lambda **how: f"data:image/png;base64,{base64.b64encode(png(**how)).decode()}"


@pytest.fixture
def run():
    """Run a coroutine to its end, or an asynchronous iterator and give what it yields."""

    def run_it(work):
        async def collect():
            return [each async for each in work]

        coroutine = collect() if hasattr(work, "__aiter__") else work
        return asyncio.run(asyncio.wait_for(coroutine, 20))

    return run_it


@pytest.fixture
def build(run):
    """Call what makes Gradio's things inside a loop: outside Gradio would leave loops open."""

    def build_it(make, *arguments, **options):
        async def inside():
            return make(*arguments, **options)

        return run(inside())

    return build_it
