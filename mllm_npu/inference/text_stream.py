"""Turn token ids into text piece by piece, never giving half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes a growing row of ids.

    A piece is the difference of two decodings of a short window, because some tokenizers decode a
    token differently at the start of a text. Bytes that do not yet make a character are held back.

    Args:
        decode: token ids -> text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._window_start = 0
        self._window_end = 0

    def push(self, token_id: int) -> str:
        """Take one more id and give the text that is certain now, often empty."""
        self._ids.append(token_id)
        return self._take(held_back=True)

    def flush(self) -> str:
        """Give what was held back; broken bytes come out as replacement characters."""
        return self._take(held_back=False)

    def _take(self, *, held_back: bool) -> str:
        before = self._decode(self._ids[self._window_start : self._window_end])
        now = self._decode(self._ids[self._window_start :])
        if len(now) <= len(before) or (held_back and now.endswith(UNFINISHED)):
            return ""
        self._window_start = self._window_end
        self._window_end = len(self._ids)
        return now[len(before) :]
