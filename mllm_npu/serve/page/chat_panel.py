"""The chat as it is laid out: one chat, or two side by side that hear the same questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import gradio as gr
from anyio import to_thread
from gradio.components import Component
from gradio.components.chatbot import ExampleMessage
from gradio.events import Dependency

from mllm_npu.serve.page.chat import Chat
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.examples import Example, examples_for
from mllm_npu.serve.page.rendering import Content
from mllm_npu.serve.page.settings_panel import make_settings_panel
from mllm_npu.serve.page.shared import Changes, Shared, Values, bind, session_of, tab_of
from mllm_npu.serve.page.words import Words

CLICK_SAVE = "() => document.querySelector('#{name}-file').click()"
"""A download begins in the browser once the file is there."""
CHAT_HEADROOM, PAIR_HEADROOM = "23.5rem", "30rem"
"""What else is to be seen beside the chats."""


class ChatPanel:
    """Components of a chat and what their events do. Built inside Gradio's blocks.

    Args:
        desk: what the page works with.
        words: of the person's language.
        chat: what happens.
        shared: fields of the page.
        models: the field of each chat's model.
        name: of the area, for the names of the elements.
        with_examples: whether an empty chat offers questions.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        words: Words,
        chat: Chat,
        shared: Shared,
        models: Sequence[gr.Dropdown],
        name: str,
        with_examples: bool = False,
    ) -> None:
        self._desk, self._words, self._chat = desk, words, chat
        self._shared, self._models, self._name = shared, list(models), name
        self._with_examples = with_examples
        self._lay_out()
        self._bind()

    def restore(self, tab: str) -> Changes:
        """Show what a tab has."""
        return self._show(self._chat.show(tab))

    @property
    def chats(self) -> list[gr.Chatbot]:
        """What shows the conversations."""
        return self._chats

    def _lay_out(self) -> None:
        words, name = self._words, self._name
        headroom = CHAT_HEADROOM if len(self._models) == 1 else PAIR_HEADROOM
        with gr.Row(elem_classes="chats"):
            self._chats = [
                gr.Chatbot(
                    elem_id=f"{name}-{number}",
                    elem_classes="chat",
                    show_label=False,
                    label=words.chat,
                    height=f"calc(100dvh - {headroom})",
                    min_height=260,
                    render_markdown=False,
                    latex_delimiters=[],
                    group_consecutive_messages=False,
                    feedback_options=None,
                    buttons=[],
                    placeholder=words.ask_first,
                    layout="bubble",
                )
                for number in range(len(self._models))
            ]
        self._notice = gr.HTML(elem_id=f"{name}-notice", elem_classes="quiet")
        self._box = gr.MultimodalTextbox(
            elem_id=f"{name}-box",
            show_label=False,
            label=words.ask,
            placeholder=words.ask,
            file_types=["image"],
            file_count="multiple",
            sources=["upload"],
            max_lines=8,
        )
        with gr.Row(elem_classes="buttons"):
            self._stop = self._button(words.stop, "stop", variant="stop", interactive=False)
            self._retry = self._button(words.retry, "retry")
            self._undo = self._button(words.undo, "undo")
            self._clear = self._button(words.clear, "clear")
            single = len(self._models) == 1
            self._save_json = self._button(words.save_json, "save-json", visible=single)
            self._save_zip = self._button(words.save_zip, "save-zip", visible=single)
        self._file = gr.DownloadButton(visible="hidden", elem_id=f"{name}-file")
        self._settings = make_settings_panel(words, name=name)

    def _button(
        self,
        label: str,
        name: str,
        *,
        variant: Literal["secondary", "stop"] = "secondary",
        interactive: bool = True,
        visible: bool = True,
    ) -> gr.Button:
        return gr.Button(
            label,
            elem_id=f"{self._name}-{name}",
            size="sm",
            min_width=72,
            variant=variant,
            interactive=interactive,
            visible=visible,
        )

    def _bind(self) -> None:
        read: list[Component] = [self._box, self._shared.tab, self._shared.key, *self._models]
        read += self._settings.fields
        buttons = [self._stop, self._retry, self._undo, self._clear]
        changed = [*self._chats, self._box, self._notice, *buttons]
        self._answer_after(bind(self._box.submit, self._take, read, changed), read, buttons)
        self._answer_after(bind(self._retry.click, self._again, read, changed), read, buttons)
        bind(self._undo.click, self._take_back, read, changed)
        bind(self._clear.click, self._begin_anew, read, changed)
        for chat in self._chats:
            bind(chat.clear, self._begin_anew, read, changed)
        bind(self._stop.click, self._end, (), (), queue=False)
        saved = [self._file, self._notice]
        for button, write in (
            (self._save_json, self._write_json),
            (self._save_zip, self._write_zip),
        ):
            written = bind(button.click, write, read, saved)
            written.success(None, None, None, js=CLICK_SAVE.format(name=self._name))
        if self._with_examples:
            chat = self._chats[0]
            bind(self._models[0].change, self._offer, self._models, self._chats)
            event = bind(chat.example_select, self._take_example, read, changed)
            self._answer_after(event, read, buttons)

    def _answer_after(
        self, event: Dependency, read: Sequence[Component], buttons: list[gr.Button]
    ) -> None:
        """Answer what an event has brought, and let the person go on."""
        answered = bind(event.then, self._answer, read, self._chats)
        bind(answered.then, self._rest, (), buttons)

    async def _take(self, values: Values, request: gr.Request) -> Changes:
        shown, said = await self._chat.take(
            values[self._box],
            self._tab(values, request),
            self._asked(values),
            self._fields(values),
            session_of(request),
        )
        if shown is None:
            return {self._notice: said}
        return self._show(shown) | self._busy() | {self._box: None, self._notice: said}

    async def _take_example(
        self, values: Values, request: gr.Request, event: gr.SelectData
    ) -> Changes:
        offered = examples_for(self._asked(values)[0], self._words).chat
        # What the browser says about files is not believed, its number is enough.
        number = event.index if isinstance(event.index, int) else 0
        shown, said = await self._chat.take_example(
            offered[number % len(offered)],
            self._tab(values, request),
            self._asked(values),
            session_of(request),
        )
        if shown is None:
            return {self._notice: said}
        return self._show(shown) | self._busy() | {self._notice: said}

    async def _answer(self, values: Values, request: gr.Request) -> AsyncIterator[Changes]:
        growing = self._chat.answer(
            self._tab(values, request),
            self._asked(values),
            values[self._shared.key],
            self._fields(values),
            session_of(request),
        )
        async for shown in growing:
            yield self._show(shown)

    async def _again(self, values: Values, request: gr.Request) -> Changes:
        shown = self._chat.retry(self._tab(values, request), session_of(request))
        return self._show(shown) | self._busy() | {self._notice: ""}

    async def _take_back(self, values: Values, request: gr.Request) -> Changes:
        shown, question = self._chat.undo(self._tab(values, request), session_of(request))
        return self._show(shown) | {self._box: question, self._notice: ""}

    async def _begin_anew(self, values: Values, request: gr.Request) -> Changes:
        shown = self._chat.clear(self._tab(values, request), session_of(request))
        return self._show(shown) | {self._notice: ""}

    async def _end(self, request: gr.Request) -> None:
        self._chat.stop(session_of(request))

    async def _rest(self) -> Changes:
        """Nothing is being made."""
        idle: Changes = {
            button: gr.Button(interactive=True) for button in (self._retry, self._undo, self._clear)
        }
        return idle | {self._stop: gr.Button(interactive=False)}

    def _busy(self) -> Changes:
        busy: Changes = {
            button: gr.Button(interactive=False)
            for button in (self._retry, self._undo, self._clear)
        }
        return busy | {self._stop: gr.Button(interactive=True)}

    async def _write_json(self, values: Values, request: gr.Request) -> Changes:
        return await self._write(values, self._tab(values, request), "json")

    async def _write_zip(self, values: Values, request: gr.Request) -> Changes:
        return await self._write(values, self._tab(values, request), "zip")

    async def _write(self, values: Values, tab: str, form: Literal["json", "zip"]) -> Changes:
        model = self._asked(values)[0]
        path, said = await to_thread.run_sync(self._chat.save, tab, model, form)
        return {self._file: None if path is None else str(path), self._notice: said}

    async def _offer(self, values: Values) -> Changes:
        """Offer what the chosen model can answer."""
        offered = examples_for(self._asked(values)[0], self._words).chat
        return {self._chats[0]: gr.Chatbot(examples=[self._example(each) for each in offered])}

    def _example(self, example: Example) -> ExampleMessage:
        pictures = [self._desk.pictures.take_bytes(data) for data in example.pictures]
        return ExampleMessage(text=example.text, files=[str(picture.shown) for picture in pictures])

    def _show(self, shown: Sequence[list[Content]]) -> Changes:
        return dict(zip(self._chats, shown, strict=True))

    def _tab(self, values: Values, request: gr.Request) -> str:
        return tab_of(values[self._shared.tab], request)

    def _asked(self, values: Values) -> list[str]:
        return [values[model] or "" for model in self._models]

    def _fields(self, values: Values) -> list[str]:
        return [values[field] or "" for field in self._settings.fields]
