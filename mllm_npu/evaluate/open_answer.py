"""Read short answers out of written replies, by the rules of MMMU and of CMMMU.

An answer is a number, or a text that the right one is looked for in. A reply may have several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Answer = str | float

_TRIVIAL = frozenset(":,.!?;'")
_DIGITS = 2
"""Numbers are compared by so many digits behind the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How replies of a language are read.

    Args:
        trims: signs that are cut off both ends, one set after the other; None is blanks.
        sentence: pattern that parts sentences.
        signs: words that an answer stands behind.
        last_signs: more of them in the last sentence.
        numbers: patterns of numbers.
        lowers: whether capital letters are not told from small ones.
    """

    trims: tuple[str | None, ...]
    sentence: str
    signs: tuple[str, ...]
    last_signs: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    lowers: bool = False


def key_phrases(text: str, reading: Reading) -> list[str]:
    """What stands behind a sign in each sentence; the whole reply where no sign is.

    Of several signs the one counts that leaves the least; one that leaves nothing hides those
    before it, as in the official scripts.
    """
    whole = text
    for signs in reading.trims:
        whole = whole.strip(signs)
    whole = whole.lower() if reading.lowers else whole
    sentences = re.split(reading.sentence, whole)
    found = []
    for number, sentence in enumerate(sentences, 1):
        shortest = ""
        for sign in reading.signs + (reading.last_signs if number == len(sentences) else ()):
            tail = sentence.rpartition(sign)[2].strip()
            if sign in sentence and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            found.append(shortest)
    return found or [whole]


def find_numbers(text: str, reading: Reading) -> list[str]:
    """All numbers of a text, by pattern and then in order."""
    return [number for pattern in reading.numbers for number in re.findall(pattern, text)]


def read_answers(
    text: str, reading: Reading, normalize: Callable[[str], Sequence[Answer]]
) -> list[Answer]:
    """All answers of a reply, each once.

    Args:
        text: the reply.
        reading: of its language.
        normalize: brings a phrase or number into the forms it is compared in.
    """
    phrases = key_phrases(text, reading)
    numbers = [number for phrase in phrases for number in find_numbers(phrase, reading)]
    answers = [answer for phrase in (*phrases, *numbers) for answer in normalize(phrase)]
    return list(dict.fromkeys(answers))


def read_number(text: str) -> float | None:
    """A text as a number with two digits behind the point; None where it is none."""
    try:
        return round(float(text.replace(",", "")), _DIGITS)
    except ValueError:
        return None


def has_right_answer(answers: Sequence[Answer], right: Sequence[Answer]) -> bool:
    """Whether a number is the right one, or a text has the right one in it."""
    for answer in answers:
        if isinstance(answer, str):
            if any(isinstance(one, str) and one in answer for one in right):
                return True
        elif answer in right:
            return True
    return False
