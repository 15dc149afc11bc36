"""Multiple choice: which of the texts a model holds for the likeliest, and what letters mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mllm_npu.inference.events import Likelihood, Reply

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Ask = Literal["likelihood", "generation"]
"""By how likely each choice is after the question, or by the reply the model writes."""

Norm = Literal["none", "tokens", "bytes"]
"""What a choice's log-probability is divided by before it is compared."""


_EQUAL = 1e-4
"""Log-probabilities that differ by less are equal. What is computed beside a question moves its
last bits (about 1e-6 in float32), and two choices of one text must not change places for it."""


def likeliest(reply: Reply, norm: Norm = "none") -> int:
    """Number of the likeliest choice; of those that are equal (to 1e-4) the first."""
    values = [_normed(choice, norm) for choice in reply.choices]
    enough = max(values) - _EQUAL
    return next(number for number, value in enumerate(values) if value >= enough)


def chosen_letter(reply: Reply, num_choices: int, norm: Norm = "none") -> str | None:
    """The letter of the likeliest choice, or the one that a written reply gives; None if none."""
    if reply.choices:
        return LETTERS[likeliest(reply, norm)]
    return read_letter(reply.text, num_choices)


def read_letter(text: str, num_choices: int) -> str | None:
    """The letter of a choice in a written reply: "B", "(B)", "B. ...", "the answer is B", "选B".

    One that follows "answer" or "option" wins, then one at the very beginning, then the first that
    stands alone. "A" before a word is an article except at the beginning.
    """
    letters = LETTERS[:num_choices]
    named = re.search(
        r"(?:answer|choice|option|答案|选项?)\s*(?:is|are|为|是)?\s*(?:应?选项?)?\s*[:：]?\s*"
        rf"[(（\[]?(?!(?-i:[ai])\s+[a-z])([{letters}])(?![a-zA-Z])",
        text,
        re.IGNORECASE,
    )
    if named:
        return named[1].upper()
    first = re.match(rf"\s*[(（\[\"']?([{letters}])(?![a-zA-Z])", text)
    if first:
        return first[1]
    alone = re.search(rf"(?<![a-zA-Z'])(?![AI]\s+[a-z])([{letters}])(?![a-zA-Z'])", text)
    return alone[1] if alone else None


def list_choices(choices: Sequence[str], form: str = "{letter}. {text}\n") -> str:
    """Choices with their letters, one a line."""
    return "".join(
        form.format(letter=letter, text=text)
        for letter, text in zip(LETTERS, choices, strict=False)
    )


def _normed(choice: Likelihood, norm: Norm) -> float:
    divisor = {"none": 1, "tokens": choice.num_tokens, "bytes": len(choice.text.encode())}[norm]
    return choice.logprob / max(divisor, 1)
