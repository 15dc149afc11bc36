"""Answer what waits in a tab's conversations: one of the chat, or two side by side."""

from __future__ import annotations

from asyncio import Event as Stop
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from anyio import to_thread

from mllm_npu.serve.page.conversation import Conversation, Reply
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.growth import STOPPED, Growth, watch
from mllm_npu.serve.page.pictures import PictureError
from mllm_npu.serve.page.rendering import Content, to_chat
from mllm_npu.serve.page.sentences import say_trouble, say_waiting
from mllm_npu.serve.page.settings import Settings
from mllm_npu.serve.page.tabs import Place
from mllm_npu.serve.page.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A conversation whose last question is to be answered.

    Args:
        place: where the tab keeps it.
        model: that answers.
    """

    place: Place
    model: str


class Answering:
    """Answers and keeps the answers.

    Args:
        desk: what the page works with.
        words: of the person's language.
    """

    def __init__(self, desk: Desk, words: Words) -> None:
        self._desk, self._words = desk, words

    async def answer(
        self, tab: str, asked: Sequence[Asked], settings: Settings, *, key: str, stop: Stop
    ) -> AsyncIterator[tuple[list[Content], ...]]:
        """Answer conversations at the same time.

        Args:
            tab: that has them.
            asked: which of them, and who answers.
            settings: of all replies.
            key: of the person.
            stop: ends it early; what is there stays.

        Yields:
            What each chat shows, whenever it has changed.
        """
        tabs, words = self._desk.tabs, self._words
        waiting = [tabs.get(tab, each.place) for each in asked]
        growths = [
            Growth(pictures=self._desk.pictures, beheld=each.last_picture()) for each in waiting
        ]
        try:
            requests = [
                {"model": each.model, **await self._messages(conversation), **settings.to_request()}
                for each, conversation in zip(asked, waiting, strict=True)
            ]
        except PictureError:
            gone = Reply(failure=words.picture_gone)
            yield tuple(to_chat(each.answer(gone), words) for each in waiting)
            return
        streams = [self._desk.controller.ask(request, key=key) for request in requests]
        async for _ in watch(growths, streams, stop=stop):
            shown = []
            for each, conversation, growth in zip(asked, waiting, growths, strict=True):
                answered = conversation.answer(self._reply(growth, stop))
                tabs.put(tab, each.place, answered)
                shown.append(to_chat(answered, words, waiting=say_waiting(growth, words)))
            yield tuple(shown)

    async def _messages(self, conversation: Conversation) -> dict[str, object]:
        read = self._desk.pictures.data_url
        return {"messages": await to_thread.run_sync(conversation.to_messages, read)}

    def _reply(self, growth: Growth, stop: Stop) -> Reply:
        if growth.error is not None:
            return replace(growth.reply, failure=say_trouble(growth.error, self._words))
        if stop.is_set() and not growth.reply.ending:
            return replace(growth.reply, ending=STOPPED)
        return growth.reply
