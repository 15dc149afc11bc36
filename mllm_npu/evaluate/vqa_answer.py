"""Compare a short answer with the answers of ten people, as the VQA challenges do.

Source: Antol et al. 2015 (VQA, arXiv 1505.00468) for the accuracy; MMF's `EvalAIAnswerProcessor`
(facebookresearch/mmf, BSD) for the normal form that TextVQA's server compares, rule by rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mllm_npu.errors import DataError

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten"
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""


def _spellings() -> dict[str, str]:
    """Each contraction by every spelling that lacks one of its apostrophes."""
    found = {"somebody'd": "somebodyd"}  # The published table turns this one round.
    for word in _CONTRACTIONS.split():
        for place in (mark.start() for mark in re.finditer("'", word)):
            found[word[:place] + word[place + 1 :]] = word
    return found


_SPELLED = _spellings()
_DIGITS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBERS.split())}
_MARKS = ';/[]"{}()=+\\_-><@`!'
_FULL_STOP = re.compile(r"\.(?!\d)")


def normal_answer(text: str) -> str:
    """The form in which answers are compared.

    Lower case, digits for number words up to ten, contractions with their apostrophes, no articles,
    no commas, and no full stops but those of decimal numbers. Another mark vanishes where a blank
    stands beside one of its kind, and is a blank where none does.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    bare = text
    for mark in _MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if beside_blank else " ")
    words = [_DIGITS.get(word, word) for word in _FULL_STOP.sub("", bare).split()]
    return " ".join(_SPELLED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(reply: str, answers: Sequence[str]) -> float:
    """How far people agree with a reply, 0..1.

    Each person is left out in turn; three of the others with the same answer are full agreement.

    Args:
        reply: what the model said.
        answers: of people, at least two; ten in the published data.

    Raises:
        DataError: there are fewer answers.
    """
    if len(answers) < 2:
        raise DataError(
            f"A reply is compared with {len(answers)} answers; at least two are needed. Take a "
            "split whose answers are published."
        )
    said = normal_answer(reply)
    same = [normal_answer(answer) == said for answer in answers]
    return sum(min((sum(same) - own) / 3, 1.0) for own in same) / len(same)
