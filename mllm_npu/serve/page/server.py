"""Serve the page in its languages until a signal, and keep its files in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.responses import HTMLResponse

from mllm_npu.serve.controller_server import listen
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.guard import FileGuard
from mllm_npu.serve.page.head import PageHead, choice_page
from mllm_npu.serve.page.layout import Layout
from mllm_npu.serve.page.pictures import MAX_BYTES, MAX_PIXELS
from mllm_npu.serve.page.style import CSS, make_theme
from mllm_npu.serve.page.words import LANGUAGES

SWEEP_SECONDS = 3600.0


def create_page(desk: Desk) -> FastAPI:
    """Put the page together: ``/`` leads to the language of the browser, or the one chosen before.

    Args:
        desk: what the page works with.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(desk))
        try:
            yield
        finally:
            sweeping.cancel()
            await desk.controller.close()

    gr.set_static_paths([desk.pictures.folder])
    # Gradio decodes what is given for editing; Pillow refuses twice this number.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get("/")
    async def choose() -> HTMLResponse:
        return HTMLResponse(choice_page())

    for words in LANGUAGES.values():
        blocks = Layout(desk, words).blocks.queue(default_concurrency_limit=None, api_open=False)
        # Gradio checks the files that a browser names once launched, but not where it is mounted.
        blocks.has_launched = True
        gr.mount_gradio_app(
            app,
            blocks,
            path=f"/{words.code}",
            footer_links=[],
            app_kwargs={"openapi_url": None},
            run_history=False,
            show_error=False,
            max_file_size=MAX_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=make_theme(),
            css=CSS,
        )
    folders = [desk.pictures.folder, Path(get_upload_folder())]
    app.add_middleware(FileGuard, folders=folders)
    app.add_middleware(PageHead)
    return app


class _Server(uvicorn.Server):
    """Ends the connections that Gradio keeps open for as long as a page is looked at."""

    def __init__(self, config: uvicorn.Config, *, pages: Sequence[gr.routes.App]) -> None:
        super().__init__(config)
        self._pages = pages

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for page in self._pages:
            page.stop_event.set()
        await super().shutdown(sockets)


def run_page(app: FastAPI, *, host: str, port: int, drain_seconds: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: the page.
        host: where to listen.
        port: where to listen; 0 takes a free one.
        drain_seconds: that replies which have begun get to end in.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = listen(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    mounted = [getattr(route, "app", None) for route in app.routes]
    pages = [each for each in mounted if isinstance(each, gr.routes.App)]
    # uvicorn raises a signal that it has obeyed once more; a stop in good order is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    address = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"the page is at http://{address}:{listener.getsockname()[1]}\n")
    with listener:
        _Server(config, pages=pages).run(sockets=[listener])


async def _sweep(desk: Desk) -> None:
    """Remove old files in time."""
    while True:
        await asyncio.to_thread(desk.pictures.sweep)
        await asyncio.sleep(SWEEP_SECONDS)
