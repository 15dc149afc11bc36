"""Replies as they grow: events of the stream are gathered, and looked at now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anyio import to_thread

from mllm_npu.serve.page.boxes import draw_boxes
from mllm_npu.serve.page.conversation import Box, Drawn, Picture, Reply
from mllm_npu.serve.page.pictures import PictureError, PictureStore
from mllm_npu.serve.page.stream import Draws, Ends, Event, Points, Says, Waits
from mllm_npu.serve.page.trouble import AskError, Trouble

PACE_SECONDS = 0.06
"""A page that is told more often only gets slower."""
ALIVE_SECONDS = 1.0
"""So often it is told in any case: time goes by, and a browser that has gone is noticed."""
STOPPED = "stopped"


@dataclass(slots=True, kw_only=True)
class Growth:
    """One request while its replies are made.

    Args:
        pictures: keeps what is drawn.
        beheld: the picture that boxes are in; None where there is none.
        began: when it was asked.
        ahead: requests before it; None where nobody has said.
        replies: as far as they are made, by number.
        error: why there is no more.
        changes: how often something was added.
    """

    pictures: PictureStore
    beheld: Picture | None = None
    began: float = field(default_factory=time.monotonic)
    ahead: int | None = None
    replies: dict[int, Reply] = field(default_factory=dict)
    error: AskError | None = None
    changes: int = 0

    @property
    def reply(self) -> Reply:
        """The first reply."""
        return self.replies.get(0, Reply())

    @property
    def seconds(self) -> int:
        """Since it was asked."""
        return int(time.monotonic() - self.began)

    async def read(self, events: AsyncIterator[Event]) -> None:
        """Take all events; what goes wrong is noted, not raised."""
        try:
            async for event in events:
                await self._take(event)
                self.changes += 1
        except AskError as error:
            self.error = error
        except PictureError as error:
            self.error = AskError(Trouble.FAILED, str(error))

    async def _take(self, event: Event) -> None:
        match event:
            case Waits(ahead=ahead):
                self.ahead = ahead
            case Says(text=text, choice=choice):
                self._change(choice, text=self._of(choice).text + text)
            case Draws(url=url, offset=offset, choice=choice):
                picture = await to_thread.run_sync(self.pictures.take_url, url)
                drawn = Drawn(picture=picture, offset=offset)
                self._change(choice, drawn=(*self._of(choice).drawn, drawn))
            case Points(boxes=boxes, choice=choice):
                marked = await to_thread.run_sync(self._mark, boxes)
                self._change(choice, boxes=boxes, marked=marked)
            case Ends(reason=reason, choice=choice):
                self._change(choice, ending=reason)

    def _of(self, choice: int) -> Reply:
        return self.replies.get(choice, Reply())

    def _change(self, choice: int, **changes: Any) -> None:
        self.replies[choice] = replace(self._of(choice), **changes)

    def _mark(self, boxes: tuple[Box, ...]) -> Picture | None:
        if self.beheld is None:
            return None
        return self.pictures.add(draw_boxes(self.pictures.open(self.beheld), boxes))


async def watch(
    growths: Sequence[Growth], streams: Sequence[AsyncIterator[Event]], *, stop: asyncio.Event
) -> AsyncIterator[bool]:
    """Let replies grow side by side; yields whenever they should be shown again.

    When ``stop`` is set, or whoever looks goes away, what still streams is closed.

    Args:
        growths: what grows.
        streams: what each of them grows from.
        stop: ends it early.

    Yields:
        Whether something still grows; False once, at the end.
    """
    tasks = [
        asyncio.ensure_future(growth.read(stream))
        for growth, stream in zip(growths, streams, strict=True)
    ]
    stopping = asyncio.ensure_future(stop.wait())
    shown, told = -1, 0.0
    try:
        while not stop.is_set() and not all(task.done() for task in tasks):
            changes, now = sum(growth.changes for growth in growths), time.monotonic()
            if changes != shown or now - told >= ALIVE_SECONDS:
                shown, told = changes, now
                yield True
            growing = [task for task in tasks if not task.done()]
            await asyncio.wait(
                {*growing, stopping}, timeout=PACE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
    yield False
