"""Compare captions with those of people: words, BLEU, ROUGE-L and CIDEr-D.

Written from the papers: the tokenizer of pycocoevalcap needs Java, and its BLEU may neither be
passed on nor be used commercially. On the same words its version 1.2 gives the same numbers, to
3e-15.

Source: Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE), Vedantam et al. 2015 (CIDEr-D, arXiv
1411.5726), and the constants of github.com/tylin/coco-caption.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]

BleuCounts = tuple[int, ...]
"""Words of a caption; words of the reference that is closest in length, of two the shorter; n-grams
that a reference has as often, for n from 1 to 4; all n-grams alike."""

LONGEST_GRAM = 4

_SMALL, _TINY = 1e-9, 1e-15
"""What BLEU's shares are kept from 0/0 by; a share of nothing is 0."""

_BETA = 1.2
"""Weight of recall in ROUGE-L."""

_SIGMA = 6.0
"""Width in words of CIDEr-D's penalty for length."""

_CIDER_SCALE = 10.0

_SHORT = (
    "mr|mrs|ms|dr|st|jr|sr|prof|gen|capt|lt|col|rev|etc|vs|ft|inc|co|corp|ave|blvd|mt|"
    "jan|feb|aug|sept|oct|nov|dec"
)
_TOKEN = re.compile(
    rf"""
    (?:[a-z]\.){{2,}}                     # u.s., a.m.
    | \b(?:{_SHORT})\.                    # mr.
    | \bno\.(?=\s*\d)                     # no. 5
    | \d+(?:[.,:]\d+)+                    # 3.5, 10:30, 1,000
    | \w+(?=n't\b) | n't\b                # is n't
    | '(?:s|re|ve|ll|d|m|em)\b            # man 's
    | \w+(?:[-/]\w+|(?<=\bo)'\w+)*        # dog, double-decker, cat/dog, o'clock
    | [!?]{{2,}} | [()\[\]{{}}] | [^\w\s.,;:!?'"`-]
    """,
    re.VERBOSE,
)
_PARTS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))


def caption_words(caption: str) -> tuple[str, ...]:
    """Words of a caption much as the official evaluation cuts it, which needs Java.

    That is the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1, in lower case and without
    punctuation. The same here: contractions are cut (is n't, man 's), compounds are not
    (double-decker, cat/dog), numbers and abbreviations keep their points, brackets are words.
    Not the same: rare abbreviations, spelt-out fractions, e-mail and web addresses, emoticons, and
    contractions such as y'all.
    """
    words: list[str] = []
    for token in _TOKEN.findall(caption.lower().replace("\u2019", "'")):
        words.extend(_PARTS.get(token, (_BRACKETS.get(token, token),)))
    return tuple(words)


def count_bleu(caption: Words, references: Sequence[Words]) -> BleuCounts:
    """What one caption adds to BLEU; at least one reference."""
    most: Grams = Counter()
    for reference in references:
        most |= _grams(reference)
    right = _grams(caption) & most
    sizes = range(1, LONGEST_GRAM + 1)
    return (
        len(caption),
        min((abs(len(words) - len(caption)), len(words)) for words in references)[1],
        *(sum(n for gram, n in right.items() if len(gram) == size) for size in sizes),
        *(max(len(caption) - size + 1, 0) for size in sizes),
    )


def bleu(counts: Sequence[BleuCounts]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, 0..1."""
    num_words, num_expected, *grams = np.sum(counts, axis=0).tolist()
    ratio = (num_words + _TINY) / (num_expected + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for size in range(1, LONGEST_GRAM + 1):
        right, all_of_size = grams[size - 1], grams[LONGEST_GRAM + size - 1]
        product *= (right + _TINY) / (all_of_size + _SMALL)
        scores.append(product ** (1 / size) * penalty)
    return scores


def rouge_l(caption: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption, 0..1: best precision and best recall over its references."""
    common = [_longest_common(caption, reference) for reference in references]
    precision = max(common) / max(len(caption), 1)
    recall = max(n / max(len(words), 1) for n, words in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def cider_d(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of each caption, 0..10; rare n-grams of the references count more.

    How rare is counted over all references that are given, so a caption's score depends on them,
    and is 0 where there is one picture only.

    Args:
        captions: one a picture.
        references: of each picture at least one.
    """
    grams = [[_grams(words) for words in own] for own in references]
    seen = Counter(gram for own in grams for gram in set().union(*own))
    log_pictures = math.log(max(len(captions), 1))
    rarity = {gram: log_pictures - math.log(number) for gram, number in seen.items()}
    return [
        _CIDER_SCALE
        * sum(_alike(_grams(caption), each, rarity, log_pictures) for each in own)
        / (len(own) * LONGEST_GRAM)
        for caption, own in zip(captions, grams, strict=True)
    ]


def _alike(
    caption: Grams, reference: Grams, rarity: dict[tuple[str, ...], float], rarest: float
) -> float:
    """Clipped cosine of weighted n-grams, summed over n, less what the length is off by."""
    total = 0.0
    for size in range(1, LONGEST_GRAM + 1):
        said = _weigh(caption, size, rarity, rarest)
        right = _weigh(reference, size, rarity, rarest)
        norms = math.sqrt(sum(v * v for v in said.values()) * sum(v * v for v in right.values()))
        if norms:
            common = said.keys() & right.keys()
            total += sum(min(said[gram], right[gram]) * right[gram] for gram in common) / norms
    off = _num_words(caption) - _num_words(reference)
    return total * math.exp(-(off**2) / (2 * _SIGMA**2))


def _weigh(
    grams: Grams, size: int, rarity: dict[tuple[str, ...], float], rarest: float
) -> dict[tuple[str, ...], float]:
    return {g: n * rarity.get(g, rarest) for g, n in grams.items() if len(g) == size}


def _grams(words: Words) -> Grams:
    return Counter(
        tuple(words[start : start + size])
        for size in range(1, LONGEST_GRAM + 1)
        for start in range(len(words) - size + 1)
    )


def _num_words(grams: Grams) -> int:
    return sum(number for gram, number in grams.items() if len(gram) == 1)


def _longest_common(one: Words, other: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = 0
        for place, theirs in enumerate(other, 1):
            above, row[place] = (
                row[place],
                above + 1 if word == theirs else max(row[place], row[place - 1]),
            )
    return row[-1]
