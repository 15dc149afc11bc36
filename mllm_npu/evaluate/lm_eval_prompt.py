"""What lm-eval asks as a conversation: raw text or a chat, with pictures where it names them."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from PIL import Image

from mllm_npu.processing.conversation import Conversation, Part, ReadImage, Role, Text, Turn
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import box_ids, reserved_ids

PLACEHOLDER = "<image>"
"""What lm-eval writes where a picture belongs."""

_RECORD = "\x1e"
"""Stands before JSON among other text (RFC 7464); no prompt begins with it by chance."""


def write_chat(messages: Sequence[Mapping[str, str]]) -> str:
    """A chat as the one text lm-eval passes around, which `PromptReader` reads back.

    The frames of the chat template are put around it later, where all conversations get theirs, so
    that a message that spells a frame stays a message.

    Args:
        messages: each with its ``role`` and ``content``.
    """
    turns = [{"role": each["role"], "content": each["content"]} for each in messages]
    return _RECORD + json.dumps(turns, ensure_ascii=False)


class PromptReader:
    """Makes conversations of what lm-eval asks.

    A text that spells a control token is cut within it, and the pieces are tokenised apart: the
    model reads the same letters, and no control token.

    Args:
        processor: knows the control tokens.

    Attributes:
        spelt: control tokens that were cut so far.
    """

    def __init__(self, processor: Processor) -> None:
        known = processor.tokenizer.added_tokens_decoder
        hidden = reserved_ids(processor.tokenizer) - box_ids(processor.tokenizer)
        spellings = sorted((known[number].content for number in hidden), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spellings)))
        self.spelt: set[str] = set()

    def read(self, prompt: str, pictures: Sequence[Image.Image] = ()) -> Conversation:
        """The conversation that a prompt stands for: a chat, or else a document.

        Args:
            prompt: raw text, or what `write_chat` gave.
            pictures: in the order of their placeholders; those without one stand before the text of
                the last turn that is not the assistant's.
        """
        messages = _read_chat(prompt) or [("document", prompt)]
        named = sum(text.count(PLACEHOLDER) for _, text in messages)
        loose = max(0, len(pictures) - named)
        asking = max(n for n, (role, _) in enumerate(messages) if role != "assistant" or n == 0)
        placed = deque(pictures[loose:])
        turns = []
        for number, (role, text) in enumerate(messages):
            first = pictures[:loose] if number == asking else ()
            parts = (*map(_read, first), *self._parts(text, placed))
            if parts:
                turns.append(Turn(role=role, parts=parts))
        return Conversation(turns=tuple(turns))

    def split(self, text: str) -> tuple[str, ...]:
        """Pieces of a text, none of which spells a control token."""
        cuts = [0]
        while found := self._control.search(text, cuts[-1]):
            cuts.append(found.start() + 1)
            self.spelt.add(found[0])
        ends = [*cuts[1:], len(text)]
        return tuple(text[a:b] for a, b in zip(cuts, ends, strict=True) if a < b)

    def _parts(self, text: str, pictures: deque[Image.Image]) -> Iterator[Part]:
        while pictures and PLACEHOLDER in text:
            before, _, text = text.partition(PLACEHOLDER)
            yield from (Text(text=piece) for piece in self.split(before))
            yield _read(pictures.popleft())
        yield from (Text(text=piece) for piece in self.split(text))


def _read(picture: Image.Image) -> ReadImage:
    return ReadImage(picture=picture.convert("RGB"))


def _read_chat(prompt: str) -> list[tuple[Role, str]]:
    """Role and text of each message; none where the prompt is no chat."""
    if not prompt.startswith(_RECORD):
        return []
    try:
        messages = json.loads(prompt.removeprefix(_RECORD))
        return [(cast("Role", each["role"]), str(each["content"])) for each in messages]
    except (ValueError, TypeError, KeyError):
        return []
