"""Tokenise texts that stand side by side as one, and know which of their tokens are learnt.

A tokenizer that is given a sentence in pieces gives other tokens than for the whole of it: many put
a blank before whatever a text begins with. Models that were trained elsewhere know the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from mllm_npu.batch import IGNORED_LABEL


@dataclass(slots=True, kw_only=True)
class TextRun:
    """Texts so far.

    Args:
        texts: in reading order.
        learns: whether each is learnt.
        frames: which of them are frames, the only ones that may spell control tokens.
    """

    texts: list[str] = field(default_factory=list)
    learns: list[bool] = field(default_factory=list)
    frames: list[bool] = field(default_factory=list)

    def add(self, text: str, *, learn: bool, is_frame: bool) -> None:
        """Append a text."""
        if text:
            self.texts.append(text)
            self.learns.append(learn)
            self.frames.append(is_frame)

    def clear(self) -> None:
        """Forget all texts."""
        self.texts.clear()
        self.learns.clear()
        self.frames.clear()

    def encode(self, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """Ids of all of it as one text, and the labels of those.

        A token belongs to the text that its last character comes from.
        """
        encoding = tokenizer.encode("".join(self.texts), add_special_tokens=False)
        learnt: list[bool] = []
        for text, learn in zip(self.texts, self.learns, strict=True):
            learnt += [learn] * len(text)
        ids: list[int] = encoding.ids
        labels = [
            number if learnt[min(max(end - 1, begin), len(learnt) - 1)] else IGNORED_LABEL
            for number, (begin, end) in zip(ids, encoding.offsets, strict=True)
        ]
        return ids, labels

    def spells(
        self, tokenizer: Tokenizer, ids: Sequence[int], control: frozenset[int]
    ) -> int | None:
        """A control token among ``ids`` that comes from no frame, if there is one.

        Texts without any may spell one where they meet.
        """
        found = Counter(number for number in ids if number in control)
        for text, is_frame in zip(self.texts, self.frames, strict=True):
            if found and is_frame:
                given = tokenizer.encode(text, add_special_tokens=False).ids
                found -= Counter(number for number in given if number in control)
        return next(iter(found), None)
