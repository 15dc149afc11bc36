"""What happens in the chat: take a question, answer it, take it back, keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from anyio import to_thread

from mllm_npu.serve.page.answering import Answering, Asked
from mllm_npu.serve.page.conversation import Conversation, Picture, Reply
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.examples import Example
from mllm_npu.serve.page.history import JSON_NAME, ZIP_NAME, to_json, to_zip
from mllm_npu.serve.page.pictures import PictureError
from mllm_npu.serve.page.rendering import Content, notice, to_chat
from mllm_npu.serve.page.sentences import say_bad_number, say_bad_picture
from mllm_npu.serve.page.settings import SettingsError, read_settings
from mllm_npu.serve.page.tabs import Place
from mllm_npu.serve.page.words import Words

Message = Mapping[str, Any]
"""What Gradio's field for text and files holds: ``text`` and ``files``."""


class Chat:
    """A chat of one or of several models, whose conversations hear the same questions.

    Args:
        desk: what the page works with.
        words: of the person's language.
        places: where a tab keeps the conversations.
    """

    def __init__(self, desk: Desk, words: Words, *, places: Sequence[Place] = ("chat",)) -> None:
        self._desk, self._words, self._places = desk, words, tuple(places)
        self._answering = Answering(desk, words)
        self._area = places[0]

    def show(self, tab: str) -> list[list[Content]]:
        """What each chat of a tab shows."""
        return [to_chat(self._get(tab, place), self._words) for place in self._places]

    async def take(
        self,
        message: Message | None,
        tab: str,
        models: Sequence[str],
        fields: Sequence[str],
        session: str,
    ) -> tuple[list[list[Content]] | None, str]:
        """Take a question in.

        Returns:
            What the chats show, or None where the question is not taken; and a notice.
        """
        text = str((message or {}).get("text") or "").strip()
        files = [Path(file) for file in (message or {}).get("files") or ()]
        if self._is_busy(session):
            return None, ""
        if not text and not files:
            return None, notice(self._words.nothing_asked, kind="hint")
        if not all(models):
            return None, notice(self._words.no_model)
        try:
            read_settings(*fields)
            pictures = await to_thread.run_sync(self._take_files, files)
        except SettingsError as error:
            return None, notice(say_bad_number(error, self._words))
        except PictureError as error:
            return None, notice(say_bad_picture(error, self._words))
        self._ask(tab, text, pictures)
        return self.show(tab), ""

    async def take_example(
        self, example: Example, tab: str, models: Sequence[str], session: str
    ) -> tuple[list[list[Content]] | None, str]:
        """The same for an example."""
        if self._is_busy(session):
            return None, ""
        if not all(models):
            return None, notice(self._words.no_model)
        pictures = [self._desk.pictures.take_bytes(data) for data in example.pictures]
        self._ask(tab, example.text, tuple(pictures))
        return self.show(tab), ""

    async def answer(
        self, tab: str, models: Sequence[str], key: str, fields: Sequence[str], session: str
    ) -> AsyncIterator[tuple[list[Content], ...]]:
        """Answer what waits in the tab; nothing happens where nothing does.

        Yields:
            What each chat shows.
        """
        asked = [
            Asked(place=place, model=model)
            for place, model in zip(self._places, models, strict=True)
        ]
        with self._desk.running.begin(session, self._area) as stop:
            if stop is None or not all(self._get(tab, place).waits for place in self._places):
                return
            try:
                settings = read_settings(*fields)
            except SettingsError as error:
                yield self._fail(tab, say_bad_number(error, self._words))
                return
            async for shown in self._answering.answer(tab, asked, settings, key=key, stop=stop):
                yield shown

    def stop(self, session: str) -> None:
        """End what is being answered; what is there stays."""
        self._desk.running.stop(session, self._area)

    def retry(self, tab: str, session: str) -> list[list[Content]]:
        """Take the last reply away, so that ``answer`` makes another one."""
        for place in self._places:
            conversation = self._get(tab, place)
            if conversation.exchanges and not self._is_busy(session):
                self._desk.tabs.put(tab, place, conversation.answer(None))
        return self.show(tab)

    def undo(self, tab: str, session: str) -> tuple[list[list[Content]], dict[str, Any]]:
        """Take the last question back: what the chats show, and what the field holds again."""
        conversation = self._get(tab, self._places[0])
        if not conversation.exchanges or self._is_busy(session):
            return self.show(tab), {"text": "", "files": []}
        last = conversation.exchanges[-1]
        for place in self._places:
            self._desk.tabs.put(tab, place, self._get(tab, place).undo())
        files = [str(picture.path) for picture in last.pictures]
        return self.show(tab), {"text": last.text, "files": files}

    def clear(self, tab: str, session: str) -> list[list[Content]]:
        """Begin anew."""
        for place in () if self._is_busy(session) else self._places:
            self._desk.tabs.put(tab, place, Conversation())
        return self.show(tab)

    def save(self, tab: str, model: str, form: Literal["json", "zip"]) -> tuple[Path | None, str]:
        """Write the conversation to a file: its path, and a notice where there is none."""
        conversation, store = self._get(tab, self._places[0]), self._desk.pictures
        if not conversation.exchanges:
            return None, notice(self._words.nothing_to_save, kind="hint")
        try:
            if form == "json":
                return store.save(JSON_NAME, to_json(conversation, model=model, store=store)), ""
            return store.save(ZIP_NAME, to_zip(conversation, words=self._words, store=store)), ""
        except PictureError:
            return None, notice(self._words.picture_gone)

    def _is_busy(self, session: str) -> bool:
        return self._desk.running.is_busy(session, self._area)

    def _fail(self, tab: str, failure: str) -> tuple[list[Content], ...]:
        for place in self._places:
            failed = self._get(tab, place).answer(Reply(failure=failure))
            self._desk.tabs.put(tab, place, failed)
        return tuple(self.show(tab))

    def _get(self, tab: str, place: Place) -> Conversation:
        return self._desk.tabs.get(tab, place)

    def _ask(self, tab: str, text: str, pictures: tuple[Picture, ...]) -> None:
        for place in self._places:
            self._desk.tabs.put(tab, place, self._get(tab, place).ask(text, pictures))

    def _take_files(self, files: Sequence[Path]) -> tuple[Picture, ...]:
        return tuple(self._desk.pictures.take_file(file) for file in files)
