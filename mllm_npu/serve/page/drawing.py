"""Draw pictures from words, or change a picture as words say."""

from __future__ import annotations

from asyncio import Event as Stop
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anyio import to_thread

from mllm_npu.serve.page.conversation import Conversation, Picture
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.growth import Growth, watch
from mllm_npu.serve.page.pictures import PictureError
from mllm_npu.serve.page.rendering import notice
from mllm_npu.serve.page.sentences import (
    say_bad_number,
    say_bad_picture,
    say_drawing,
    say_trouble,
)
from mllm_npu.serve.page.settings import DrawingSettings, SettingsError, read_drawing
from mllm_npu.serve.page.words import Words

Area = Literal["draw", "edit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How far the drawing is.

    Args:
        pictures: so far, in the order of their seeds.
        captions: what stands below each.
        notice: markup about it.
    """

    pictures: tuple[Picture, ...] = ()
    captions: tuple[str, ...] = ()
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be drawn.

    Args:
        model: that draws.
        prompt: what it draws, or changes.
        picture: the file that is changed; None where there is none.
        seed: the field as it is, like those that follow.
        number: of pictures.
        steps: see ``DrawingSettings``.
        guidance: see ``DrawingSettings``.
        image_guidance: see ``DrawingSettings``.
    """

    model: str
    prompt: str
    picture: str | None = None
    seed: str = ""
    number: float = 1
    steps: str = ""
    guidance: str = ""
    image_guidance: str = ""


class Drawing:
    """An area of the page that makes pictures.

    Args:
        desk: what the page works with.
        words: of the person's language.
        area: "edit" needs a picture.
    """

    def __init__(self, desk: Desk, words: Words, *, area: Area = "draw") -> None:
        self._desk, self._words, self._area = desk, words, area

    async def make(self, wish: Wish, *, key: str, session: str) -> AsyncIterator[Shown]:
        """Draw what is wished for.

        Args:
            wish: what.
            key: of the person.
            session: of the browser's page.

        Yields:
            The pictures so far, and how far it is.
        """
        with self._desk.running.begin(session, self._area) as stop:
            if stop is None:
                return
            refused = self._refuse(wish)
            if refused:
                yield Shown(notice=refused)
                return
            try:
                settings = read_drawing(
                    wish.seed, wish.number, wish.steps, wish.guidance, wish.image_guidance
                )
                pictures = await to_thread.run_sync(self._take, wish.picture)
            except SettingsError as error:
                yield Shown(notice=notice(say_bad_number(error, self._words)))
                return
            except PictureError as error:
                yield Shown(notice=notice(say_bad_picture(error, self._words)))
                return
            async for shown in self._follow(wish, pictures, settings, key=key, stop=stop):
                yield shown

    def stop(self, session: str) -> None:
        """End it; what is drawn stays."""
        self._desk.running.stop(session, self._area)

    async def _follow(
        self,
        wish: Wish,
        pictures: Sequence[Picture],
        settings: DrawingSettings,
        *,
        key: str,
        stop: Stop,
    ) -> AsyncIterator[Shown]:
        asked = Conversation().ask(wish.prompt.strip(), tuple(pictures))
        messages = await to_thread.run_sync(asked.to_messages, self._desk.pictures.data_url)
        request: dict[str, Any] = {"model": wish.model, "messages": messages}
        growth = Growth(pictures=self._desk.pictures)
        stream = self._desk.controller.ask(request | settings.to_request(), key=key)
        async for grows in watch([growth], [stream], stop=stop):
            said = self._say(growth, settings.number if grows else 0, stop)
            yield self._show(growth, settings.seed, said)

    def _say(self, growth: Growth, total: int, stop: Stop) -> str:
        """How far it is; with a total of 0 how it has ended."""
        if total:
            said = say_drawing(growth, self._words, total=total)
            return notice(said or "…", kind="hint")
        if growth.error is not None:
            return notice(say_trouble(growth.error, self._words))
        if stop.is_set():
            return notice(self._words.endings["stopped"], kind="hint")
        return (
            ""
            if any(reply.drawn for reply in growth.replies.values())
            else notice(self._words.nothing_said)
        )

    def _refuse(self, wish: Wish) -> str:
        if not wish.model:
            return notice(self._words.no_model)
        if self._area == "edit" and not wish.picture:
            return notice(self._words.no_picture, kind="hint")
        if not wish.prompt.strip():
            return notice(self._words.nothing_asked, kind="hint")
        if not self._desk.models.draws(wish.model):
            return notice(self._words.does_not_draw.format(said=wish.model))
        return ""

    def _take(self, picture: str | None) -> tuple[Picture, ...]:
        return () if picture is None else (self._desk.pictures.take_file(Path(picture)),)

    def _show(self, growth: Growth, seed: int, said: str) -> Shown:
        drawn = [
            (each.picture, f"{self._words.seed} {seed + choice}")
            for choice, reply in sorted(growth.replies.items())
            for each in reply.drawn
        ]
        return Shown(
            pictures=tuple(picture for picture, _ in drawn),
            captions=tuple(caption for _, caption in drawn),
            notice=said,
        )
