"""What is added to Gradio's page: what it may load, its language, and where files are dropped."""

from __future__ import annotations

import html
import json

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_npu.serve.page.style import ICON
from mllm_npu.serve.page.words import LANGUAGES, Words

LANGUAGE_KEY = "mllm-npu-language"
"""Where a browser keeps the language that was chosen."""
POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio's start and the functions of events are inline.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
"""What a browser may load: nothing from elsewhere, whatever a text says."""
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_LOCALES = {"zh": "zh-CN"}
"""Gradio's names of the languages."""
_DROP = """
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  const fields = [...document.querySelectorAll('#chat-box textarea, #compare-box textarea')];
  const field = fields.find((each) => each.offsetParent);
  if (event.defaultPrevented || event.target === field) return;
  event.preventDefault();
  if (field && event.dataTransfer?.files.length) field.dispatchEvent(new DragEvent('drop',
    {dataTransfer: event.dataTransfer, bubbles: true, cancelable: true}));
});
"""
"""A picture that is dropped beside the field for questions would replace the page."""


class PageHead:
    """Adds headers to what is served, and the language to the page itself.

    Args:
        app: what is served.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._pages = {f"/{words.code}/": words for words in LANGUAGES.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        words = self._pages.get(scope["path"]) if scope["method"] == "GET" else None
        if words is None:
            await self.app(scope, receive, _Sender(send).pass_on)
            return
        # It comes whole and unpacked, so that the language can be put into it.
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        sender = _Sender(send, words)
        await self.app({**scope, "headers": headers}, receive, sender.pass_on)


class _Sender:
    """Sends one reply."""

    def __init__(self, send: Send, words: Words | None = None) -> None:
        self._send, self._words = send, words
        self._start: Message = {}
        self._body = b""

    async def pass_on(self, message: Message) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            headers.update(HEADERS)
            self._start = message
            if self._words is None:
                await self._send(message)
            return
        if self._words is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = in_language(self._body.decode(), self._words).encode()
        MutableHeaders(raw=self._start["headers"])["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def in_language(page: str, words: Words) -> str:
    """Gradio's page with the language told to the browser and to Gradio's own words."""
    locale = _LOCALES.get(words.code, words.code)
    script = (
        f"Object.defineProperty(navigator, 'language', {{get: () => {json.dumps(locale)}}});"
        f"Object.defineProperty(navigator, 'languages', {{get: () => [{json.dumps(locale)}]}});"
        "if (location.search === '?chosen') {"
        f"localStorage.setItem({json.dumps(LANGUAGE_KEY)}, {json.dumps(words.code)});"
        "history.replaceState(null, '', location.pathname); }"
    )
    head = f'<head><script>{script}{_DROP}</script><link rel="icon" href="{html.escape(ICON)}">'
    return page.replace("<head>", head, 1).replace('lang="en"', f'lang="{locale}"', 1)


def choice_page() -> str:
    """A page that leads on to a language, and lets people choose where no script runs."""
    codes = json.dumps(list(LANGUAGES))
    script = (
        f"const codes = {codes};"
        f"const asked = [localStorage.getItem({json.dumps(LANGUAGE_KEY)}), ...navigator.languages];"
        "const wanted = asked.map((name) => (name || '').slice(0, 2));"
        "location.replace((wanted.find((name) => codes.includes(name)) || codes[0]) + '/');"
    )
    links = " · ".join(
        f'<a href="{words.code}/" lang="{words.code}">{html.escape(words.own_name)}</a>'
        for words in LANGUAGES.values()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mllm-npu</title>'
        '<meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="{html.escape(ICON)}">'
        f"<script>{script}</script></head><body>{links}</body></html>"
    )
