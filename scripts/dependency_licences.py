"""Licences of installed packages: read them from their metadata, and say whether they are allowed.

Allowed are permissive licences, and those that ask for changes of the library itself alone (MPL,
LGPL of what is imported as it is).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import Message

ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *("CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"),
        "Apache-2.0 WITH LLVM-exception",
        *("MPL-2.0", "LGPL-2.1-or-later", "LGPL-3.0-or-later"),
    }
)
"""By their SPDX names; BSD is one of its kinds where the metadata do not say which."""
CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What index classifiers mean; whatever else stands there is taken as it stands."""
NOT_A_LICENCE = ("DFSG approved", "OSI Approved")
SPELLINGS = {
    "3-clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "gplv2": "GPL-2.0-only",
    "psfl": "PSF-2.0",
    "the mit (mit)": "MIT",
}
"""How people write them, in small letters and without the word license."""


def read_licence(metadata: Message) -> str | None:
    """The licence of a package as an expression; None where its metadata have none.

    Args:
        metadata: of an installed distribution.
    """
    if expression := metadata.get("License-Expression"):
        return str(expression)
    told = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    kinds = [CLASSIFIERS.get(each, each) for each in told if each not in NOT_A_LICENCE]
    if kinds:
        return " AND ".join(f"({kind})" if " " in kind else kind for kind in dict.fromkeys(kinds))
    text = str(metadata.get("License") or "").strip()
    # Some write the whole licence there, of which the first line may be its name.
    name = _spell(text.partition("\n")[0])
    return None if text in ("", "UNKNOWN") or ("\n" in text and name not in ALLOWED) else name


def is_allowed(expression: str) -> bool:
    """Whether one of the choices that an SPDX expression gives is allowed as a whole."""
    words = re.findall(r"[()]|[^\s()]+", expression)
    allowed, rest = _any_of(words)
    return allowed and not rest


def _spell(text: str) -> str:
    """The SPDX name that a person means, or what was written."""
    plain = re.sub(r"\s+", " ", re.sub(r"[,.]?\blicen[cs]e\b,?", "", text, flags=re.IGNORECASE))
    return SPELLINGS.get(plain.strip().lower(), plain.strip() if plain.strip() in ALLOWED else text)


def _any_of(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    allowed, words = _all_of(words)
    while words[:1] == ["OR"]:
        other, words = _all_of(words[1:])
        allowed = allowed or other
    return allowed, words


def _all_of(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    allowed, words = _one(words)
    while words[:1] == ["AND"]:
        other, words = _one(words[1:])
        allowed = allowed and other
    return allowed, words


def _one(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    if words[:1] == ["("]:
        allowed, words = _any_of(words[1:])
        return allowed and words[:1] == [")"], words[1:]
    if words[1:2] == ["WITH"]:
        return " ".join(words[:3]) in ALLOWED, words[3:]
    return bool(words) and words[0] in ALLOWED, words[1:]
