import re
from random import Random

import pytest

from mllm_npu.data.worlds import digit_words as words


def words_of(texts):
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


@pytest.fixture(scope="module")
def drawing():
    return words.draw_wordings()


def test_there_are_wordings_enough(drawing):
    assert len(drawing) > 300
    assert len(set(words.read_wordings())) >= 300
    assert len(set(words.SUM)) >= 12
    assert len(set(words.UNSEEN_DRAW)) >= 10
    assert len(set(words.UNSEEN_READ)) >= 5
    starts = {wording.index("{d}") for wording in drawing}
    assert min(starts) == 0
    assert max(starts) > 40


def test_unseen_wordings_are_not_among_those_for_training(drawing):
    def bare(wording):
        return wording.lower().rstrip(".?")

    training = {bare(wording) for wording in (*drawing, *words.read_wordings())}
    for wording in (*words.UNSEEN_DRAW, *words.UNSEEN_READ):
        assert bare(wording) not in training


def test_unseen_wordings_are_made_of_words_that_training_has(drawing):
    known = words_of((*drawing, *words.read_wordings(), *words.SUM, *words.LARGER, *words.STRIP))
    assert words_of(words.UNSEEN_DRAW + words.UNSEEN_READ) - {"d"} <= known


def test_draw_wordings_have_one_slot_and_name_no_other_digit(drawing):
    for wording in (*drawing, *words.UNSEEN_DRAW):
        assert wording.count("{d}") == 1
        names = words_of([wording.replace("{d}", "")])
        assert not names & set(words.NUMBERS), wording
        assert not re.search(r"\d", wording)


def test_chosen_questions_are_training_wordings_and_vary():
    chosen = [words.choose_read_wording(Random(seed)) for seed in range(600)]
    assert set(chosen) <= set(words.read_wordings())
    assert len(set(chosen)) > 300


def test_chosen_wordings_are_training_wordings_and_vary(drawing):
    chosen = [words.choose_draw_wording(Random(seed)) for seed in range(600)]
    assert set(chosen) <= set(drawing)
    assert len(set(chosen)) > 400


@pytest.mark.parametrize(
    ("wording", "digit", "as_word", "filled"),
    [
        ("Draw a {d}.", 7, True, "Draw a seven."),
        ("Draw a {d}.", 8, True, "Draw an eight."),
        ("A {d}, please.", 8, False, "An 8, please."),
        ("Draw the digit {d}.", 8, True, "Draw the digit eight."),
        ("A handwritten {d}.", 8, True, "A handwritten eight."),
        ("{d}!", 0, False, "0!"),
    ],
)
def test_digits_are_filled_in_with_their_article(wording, digit, as_word, filled):
    assert words.fill(wording, digit, as_word=as_word) == filled


def test_loosening_changes_only_case_and_the_last_mark():
    forms = {words.loosen("Draw It.", Random(seed)) for seed in range(100)}
    assert forms == {"Draw It.", "draw it.", "Draw It", "draw it"}


def test_sentences_about_numbers_are_true():
    sentences = list(words.number_sentences())
    assert len(set(sentences)) > 1000
    value = {name: number for number, name in enumerate(words.NUMBERS)}
    found = 0
    for sentence in sentences:
        if match := re.fullmatch(r"(\w+) (plus|minus) (\w+) is (\w+)\.", sentence):
            first, sign, second, result = match.groups()
            if first in value:
                other = value[second] if sign == "plus" else -value[second]
                assert value[first] + other == value[result]
                found += 1
        if match := re.fullmatch(r"(\w+) is larger than (\w+)\.", sentence):
            assert value[match[1]] > value[match[2]]
            found += 1
    assert found == 100 + 55 + 45


def test_counting_on_and_back():
    sentences = set(words.number_sentences())
    assert "count on: two, three, four." in sentences
    assert "count back: eighteen, seventeen, sixteen." in sentences
    assert "after eight comes nine." in sentences
    assert "7 is the digit seven." in sentences
