"""The whole page in one language: its areas, its models, and what a reload finds again."""

from __future__ import annotations

import html

import gradio as gr

from mllm_npu.serve.page.chat import Chat
from mllm_npu.serve.page.chat_panel import ChatPanel
from mllm_npu.serve.page.comparison import Comparison
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.drawing_panel import DrawingPanel
from mllm_npu.serve.page.models import Listed
from mllm_npu.serve.page.rendering import notice
from mllm_npu.serve.page.sentences import say_trouble
from mllm_npu.serve.page.shared import Changes, Shared, Values, bind, model_field, session_of
from mllm_npu.serve.page.style import LOOK_AGAIN_SECONDS
from mllm_npu.serve.page.trouble import Trouble
from mllm_npu.serve.page.words import LANGUAGES, Words

READ_TAB = "() => [sessionStorage.getItem('mllm-npu-tab') || '']"
KEEP_TAB = "(name) => { sessionStorage.setItem('mllm-npu-tab', name) }"
"""The name of a tab lives in its session storage: a reload keeps it, another tab has its own."""


class Layout:
    """The page in one language.

    Args:
        desk: what the page works with.
        words: of the language.
    """

    def __init__(self, desk: Desk, words: Words) -> None:
        self._desk, self._words = desk, words
        self.blocks = gr.Blocks(
            title=words.title,
            analytics_enabled=False,
            fill_width=True,
            # How often files that Gradio took in are looked at, and how old they may get.
            delete_cache=(3600, 24 * 3600),
        )
        with self.blocks:
            self._lay_out()
            self._bind()

    def _lay_out(self) -> None:
        words = self._words
        with gr.Row(elem_id="top"):
            gr.HTML(_heading(words), elem_id="heading")
            model = model_field(words.model, name="model")
        tab = gr.Textbox(visible=False, elem_id="tab")
        self._notice = gr.HTML(elem_id="notice")
        key = gr.Textbox(
            label=words.key,
            info=words.key_hint,
            type="password",
            visible=False,
            max_lines=1,
            elem_id="key",
        )
        self._shared = shared = Shared(tab=tab, key=key, model=model)
        with gr.Tabs(elem_id="areas"):
            with gr.Tab(words.chat, id="chat"):
                self._chat = ChatPanel(
                    desk=self._desk,
                    words=words,
                    chat=Chat(self._desk, words),
                    shared=shared,
                    models=[model],
                    name="chat",
                    with_examples=True,
                )
            with gr.Tab(words.draw, id="draw"):
                DrawingPanel(desk=self._desk, words=words, shared=shared, area="draw")
            with gr.Tab(words.edit, id="edit"):
                DrawingPanel(desk=self._desk, words=words, shared=shared, area="edit")
            with gr.Tab(words.compare, id="compare"):
                self._comparison = Comparison(desk=self._desk, words=words, shared=shared)

    def _bind(self) -> None:
        shared = self._shared
        panels = (self._chat, self._comparison.panel)
        chats = [chat for panel in panels for chat in panel.chats]
        # Gradio's own binding: the value comes from the script.
        opened = self.blocks.load(
            self._open,
            inputs={shared.tab},
            outputs=[shared.tab, *chats],
            js=READ_TAB,
            show_progress="hidden",
            api_visibility="private",
        )
        opened.success(None, inputs=[shared.tab], outputs=None, js=KEEP_TAB)
        models = [shared.model, *self._comparison.models]
        self._known = gr.State(())
        read = [*models, shared.key, self._known]
        changed = [*models, shared.key, self._known, self._notice]
        bind(self.blocks.load, self._look, read, changed)
        bind(gr.Timer(LOOK_AGAIN_SECONDS).tick, self._look, read, changed)
        bind(shared.key.submit, self._look, read, changed)
        bind(shared.key.blur, self._look, read, changed)
        self.blocks.unload(self._leave)

    async def _open(self, values: Values) -> Changes:
        earlier = str(values[self._shared.tab] or "")
        tab = self._desk.tabs.open(earlier)
        shown = self._chat.restore(tab) | self._comparison.panel.restore(tab)
        return shown | {self._shared.tab: tab}

    async def _leave(self, request: gr.Request) -> None:
        """What is made for a page that is closed is called off."""
        self._desk.running.stop(session_of(request))

    async def _look(self, values: Values) -> Changes:
        """Say which models there are, where that has changed."""
        listed = await self._desk.models.look(key=str(values[self._shared.key] or "").strip())
        names = [model.name for model in listed.models]
        state = (names, listed.error and str(listed.error))
        if tuple(values[self._known]) == state:
            return {self._notice: gr.skip()}
        changes: Changes = {self._known: state, self._notice: self._say(listed)}
        if listed.error is not None and listed.error.trouble is Trouble.KEY:
            changes[self._shared.key] = gr.Textbox(visible=True)
        if listed.error is None:
            fields = (self._shared.model, *self._comparison.models)
            for number, field in enumerate(fields):
                # The second one to compare is another one, where there are two.
                first = names[(number == len(fields) - 1) % len(names)] if names else None
                value = values[field] if values[field] in names else first
                changes[field] = gr.Dropdown(choices=names, value=value)
        return changes

    def _say(self, listed: Listed) -> str:
        if listed.error is not None:
            return notice(say_trouble(listed.error, self._words))
        return "" if listed.models else notice(self._words.no_model, kind="hint")


def _heading(words: Words) -> str:
    links = "".join(
        f'<a href="../{other.code}/?chosen" lang="{other.code}">{html.escape(other.own_name)}</a>'
        if other.code != words.code
        else f'<b lang="{other.code}">{html.escape(other.own_name)}</b>'
        for other in LANGUAGES.values()
    )
    title, subtitle = html.escape(words.title), html.escape(words.subtitle)
    label = html.escape(words.language)
    return (
        f'<div class="heading"><div><h1>{title}</h1><p>{subtitle}</p></div>'
        f'<nav aria-label="{label}">{links}</nav></div>'
    )
