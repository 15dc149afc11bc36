"""What task tests share: an rng and a word counter in place of a tokenizer."""

from random import Random

import pytest


@pytest.fixture
def rng():
    return Random(0)


@pytest.fixture
def count_words():
    return lambda text: len(text.split())
