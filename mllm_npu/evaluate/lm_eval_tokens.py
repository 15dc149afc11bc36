"""Tokens of what lm-eval has weighed: a prompt with each of its continuations, cut where too long.

Tokens are made as lm-eval's own model for transformers makes them, so that its figures can be
compared: see `PairEncoder.encode`.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mllm_npu.batch import Sample
from mllm_npu.errors import TooLongError
from mllm_npu.evaluate.lm_eval_prompt import PromptReader
from mllm_npu.inference.likelihood import Tokens
from mllm_npu.processing.conversation import Conversation, Text, Turn
from mllm_npu.processing.layout import TokenLayout
from mllm_npu.processing.processor import Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A prompt and continuations that follow it.

    Args:
        prompt: as the model sees it.
        continuations: tokens of each.
        numbers: of each, among the texts that were given.
    """

    prompt: Sample
    continuations: tuple[Tokens, ...]
    numbers: tuple[int, ...]


class PairEncoder:
    """Makes prompts and continuations, none longer than the model takes.

    Args:
        processor: the one the model was trained with.
        max_tokens: longest prompt with its continuation, whose last token is not read.

    Attributes:
        prefix_id: stands before a text that has no prompt: the begin token, or else the end token.
        num_cut: prompts that lost their beginning so far.
        reader: makes conversations of prompts.
    """

    def __init__(self, *, processor: Processor, max_tokens: int) -> None:
        self._processor = processor
        # Lays out what is too long as well; it is cut here.
        self._unbounded = copy.copy(processor)
        self._unbounded.max_tokens = sys.maxsize
        self._max_tokens = max_tokens
        bos_id = processor.tokenizer.bos_token_id
        self._opening: Tokens = () if bos_id is None else (bos_id,)
        self.prefix_id: int = processor.eos_id if bos_id is None else bos_id
        self.reader = PromptReader(processor)
        self.num_cut = 0

    def encode(
        self, prompt: str, texts: Sequence[str], pictures: Sequence[Image.Image] = ()
    ) -> list[Pairs]:
        """A prompt with each text that is weighed after it; several where it is cut differently.

        Raw text is tokenised with its continuation as one text, whose tokens after those of the
        prompt are the continuation's; blanks at the end of the prompt belong to the continuation.
        Where the prompt's own tokens are not how that text begins, and after a chat or a picture,
        the continuation is tokenised by itself.

        What is too long loses its beginning: of raw text as many tokens as are too many, of a chat
        and beside pictures the oldest text, so that frames and pictures stay whole.

        Raises:
            RequestError: a text has more tokens than the model takes, or a picture leaves no room.
        """
        conversation = self.reader.read(prompt, pictures)
        if pictures or any(turn.role != "document" for turn in conversation.turns):
            return [self._encode_conversation(conversation, texts)]
        tokens, continuations = self._encode_document(prompt, texts)
        starts: dict[int, list[int]] = {}
        for number, continuation in enumerate(continuations):
            start = max(0, len(tokens) + len(continuation) - 1 - self._max_tokens)
            if start >= len(tokens):
                self._refuse(len(continuation))
            starts.setdefault(start, []).append(number)
        self.num_cut += any(starts)
        return [
            Pairs(
                prompt=self.sample(tokens[start:]),
                continuations=tuple(continuations[number] for number in numbers),
                numbers=tuple(numbers),
            )
            for start, numbers in starts.items()
        ]

    def shorten(self, conversation: Conversation, room: int) -> Conversation:
        """The conversation without as much of its oldest text as makes it fit into ``room`` tokens.

        Raises:
            TooLongError: it does not fit without any.
        """
        is_cut = False
        while (surplus := self._count(conversation) - room) > 0:
            conversation, is_cut = _drop_first(conversation, surplus, self._processor), True
        self.num_cut += is_cut
        return conversation

    def tokens(self, text: str) -> Tokens:
        """Tokens of a text that follows others; none of an empty one."""
        pieces = self.reader.split(text)
        return tuple(each for piece in pieces for each in self._processor.encode_text(piece))

    def sample(self, tokens: Tokens) -> Sample:
        """Tokens without pictures as the model sees them."""
        layout = TokenLayout(conversation=Conversation(turns=()))
        layout.add(tokens, learn=False)
        return self._processor.fill(layout)

    def _encode_document(self, prompt: str, texts: Sequence[str]) -> tuple[Tokens, list[Tokens]]:
        words = prompt.rstrip()
        blanks = prompt.removeprefix(words)
        if not words:
            return (self.prefix_id,), [self.tokens(blanks + text) for text in texts]
        own = self.tokens(words)
        return (*self._opening, *own), [self._continue(words, own, blanks + text) for text in texts]

    def _continue(self, prompt: str, own: Tokens, text: str) -> Tokens:
        whole = self.tokens(prompt + text)
        if len(whole) > len(own) and whole[: len(own)] == own:
            return whole[len(own) :]
        return self.tokens(text)

    def _encode_conversation(self, conversation: Conversation, texts: Sequence[str]) -> Pairs:
        continuations = tuple(self.tokens(text) for text in texts)
        longest = max(map(len, continuations))
        if longest > self._max_tokens:
            self._refuse(longest)
        cut = self.shorten(conversation, self._max_tokens + 1 - longest)
        return Pairs(
            prompt=self._processor.encode(cut, reply=True),
            continuations=continuations,
            numbers=tuple(range(len(texts))),
        )

    def _count(self, conversation: Conversation) -> int:
        return self._unbounded.lay_out(conversation, reply=True).num_tokens

    def _refuse(self, num_tokens: int) -> None:
        raise TooLongError(
            f"A text to weigh has {num_tokens} tokens, the model takes {self._max_tokens}. Leave "
            "its task out."
        )


def _drop_first(conversation: Conversation, count: int, processor: Processor) -> Conversation:
    """Without about so many tokens of the oldest text that is no system's."""
    turns = conversation.turns
    for number, turn in enumerate(turns):
        found = _first_text(turn)
        if found is None:
            continue
        place, text = found
        kept = _without_first(text, count, processor)
        texts = (Text(text=kept),) if kept.strip() else ()
        parts = (*turn.parts[:place], *texts, *turn.parts[place + 1 :])
        if not parts and number == len(turns) - 1:
            break
        rest = (dataclasses.replace(turn, parts=parts),) if parts else ()
        left = (*turns[:number], *rest, *turns[number + 1 :])
        return dataclasses.replace(conversation, turns=left)
    raise TooLongError(
        "A prompt leaves no room for its reply, however short it is made. Ask for fewer tokens "
        "(--gen_kwargs max_gen_toks=...), or leave its task out."
    )


def _first_text(turn: Turn) -> tuple[int, str] | None:
    """Place and words of the first text of a turn that is no system's."""
    if turn.role == "system":
        return None
    texts = ((n, part.text) for n, part in enumerate(turn.parts) if isinstance(part, Text))
    return next(texts, None)


def _without_first(text: str, count: int, processor: Processor) -> str:
    """A text without its first tokens, cut between letters."""
    encoded = processor.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    if count >= len(encoded.offsets):
        return ""
    return text[max(1, encoded.offsets[count][0]) :]
