"""Words: every language has all of them, with the same places for values."""

import string
from dataclasses import fields

import pytest

from mllm_npu.serve.page.trouble import Trouble
from mllm_npu.serve.page.words import CHINESE, ENGLISH, LANGUAGES, Words

SAME = {"title", "code", "own_name", "top_p"}


def texts(words):
    """Every text of a language by its name."""
    found = {}
    for field in fields(Words):
        value = getattr(words, field.name)
        if isinstance(value, str):
            found[field.name] = value
        elif isinstance(value, tuple):
            found |= {f"{field.name}.{number}": each for number, each in enumerate(value)}
        else:
            found |= {f"{field.name}.{name}": each for name, each in value.items()}
    return found


def places(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_keys():
    assert texts(ENGLISH).keys() == texts(CHINESE).keys()
    assert LANGUAGES == {"en": ENGLISH, "zh": CHINESE}


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_nothing_is_empty_and_every_trouble_has_a_sentence(words):
    assert [name for name, text in texts(words).items() if not text.strip()] == []
    assert set(words.troubles) == set(Trouble)


def test_values_stand_in_both_languages():
    english, chinese = texts(ENGLISH), texts(CHINESE)
    assert {name: places(text) for name, text in english.items()} == {
        name: places(text) for name, text in chinese.items()
    }


def test_chinese_is_chinese():
    left = [
        name
        for name, text in texts(CHINESE).items()
        if name not in SAME and not any("\u4e00" <= letter <= "\u9fff" for letter in text)
    ]
    assert left == []
    assert all(text.isascii() for text in texts(ENGLISH).values())
