"""What each browser tab has, under a name that only the tab knows: a reload finds it again."""

from __future__ import annotations

import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mllm_npu.serve.page.conversation import Conversation

Place = Literal["chat", "left", "right"]
MOST_TABS = 1000
KEEP_SECONDS = 12 * 3600.0
_NOTHING = Conversation()
_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """The conversations of one tab.

    Args:
        chat: of the chat.
        left: of the comparison, with the first model.
        right: of the comparison, with the second model.
        used: when it was last asked for, in seconds.
    """

    chat: Conversation = _NOTHING
    left: Conversation = _NOTHING
    right: Conversation = _NOTHING
    used: float = 0.0


class Tabs:
    """The tabs that were used last.

    Args:
        most: number that is kept.
        keep_seconds: a tab that was not used for so long is forgotten.
        clock: gives seconds.
    """

    def __init__(
        self,
        *,
        most: int = MOST_TABS,
        keep_seconds: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._keep_seconds, self._clock = most, keep_seconds, clock
        self._tabs: OrderedDict[str, Tab] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tabs)

    def open(self, earlier: str = "") -> str:
        """A name for a tab that was just loaded.

        It begins with what the tab had before. The earlier name stays: a browser that duplicates a
        tab gives its copy the same one, and the two must not write into each other.

        Args:
            earlier: the tab's name before it was loaded again; "" where it is new.
        """
        name = uuid.uuid4().hex
        self._tabs[name] = replace(self._tabs.get(earlier, Tab()), used=self._clock())
        self._forget()
        return name

    def get(self, name: str, place: Place) -> Conversation:
        """One conversation of a tab; an empty one where it was forgotten."""
        conversation: Conversation = getattr(self._tabs.get(name, Tab()), place)
        return conversation

    def put(self, name: str, place: Place, conversation: Conversation) -> None:
        """Keep a conversation of a tab, also of one that was forgotten meanwhile.

        What is no name of a tab is passed over.
        """
        if not _NAME.fullmatch(name):
            return
        kept = self._tabs.get(name, Tab())
        changed: dict[str, Any] = {place: conversation}
        self._tabs[name] = replace(kept, used=self._clock(), **changed)
        self._tabs.move_to_end(name)
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - self._keep_seconds
        for name in [name for name, tab in self._tabs.items() if tab.used < oldest]:
            del self._tabs[name]
        while len(self._tabs) > self._most:
            self._tabs.popitem(last=False)
