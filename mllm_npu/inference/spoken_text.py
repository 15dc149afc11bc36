"""Say chosen tokens as text: cut exactly before a stop text, with the tokens' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mllm_npu.inference.events import TextDelta, TokenLogprob
from mllm_npu.inference.text_stream import TextStream


class SpokenText:
    """Holds back what may become a stop text, and gives the rest as it is certain.

    Args:
        decode: token ids -> text.
        stops: texts that end a reply.

    Attributes:
        stopped: one of them has come; nothing is said any more.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, stops: Sequence[str] = ()
    ) -> None:
        self.stopped = False
        self._stops = tuple(stops)
        self._stream = TextStream(decode)
        self._held = ""
        self._num_read = 0
        self._num_said = 0
        self._unsaid: list[tuple[int, TokenLogprob]] = []

    def push(self, token_id: int, logprob: TokenLogprob | None = None) -> list[TextDelta]:
        """Take one more token and give the text that is certain now, often none."""
        if logprob is not None:
            self._unsaid.append((self._num_read, logprob))
        return self._say(self._stream.push(token_id), is_last=False)

    def flush(self) -> list[TextDelta]:
        """Give what was held back; no further token comes."""
        return [] if self.stopped else self._say(self._stream.flush(), is_last=True)

    def _say(self, text: str, *, is_last: bool) -> list[TextDelta]:
        self._num_read += len(text)
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            said, self._held = self._held[: min(found)], ""
        else:
            num_held = 0 if is_last else self._num_doubtful()
            certain = len(self._held) - num_held
            said, self._held = self._held[:certain], self._held[certain:]
        self._num_said += len(said)
        everything = is_last and not found
        due = [one for start, one in self._unsaid if everything or start < self._num_said]
        self._unsaid = self._unsaid[len(due) :]
        return [TextDelta(text=said, logprobs=tuple(due))] if said or due else []

    def _num_doubtful(self) -> int:
        """Characters at the end that may be the beginning of a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(len(stop) > length and stop.startswith(end) for stop in self._stops):
                return length
        return 0
