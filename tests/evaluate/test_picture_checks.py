import pytest

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.picture_checks import (
    QUESTIONS,
    Wanted,
    control_check,
    fill_questions,
    make_checks,
    plural,
    read_checks,
    with_article,
)

SINGLE = {"include": [{"class": "dog", "count": 1}]}
COUNTING = {
    "include": [{"class": "clock", "count": 2}],
    "exclude": [{"class": "clock", "count": 3}],
}
COLORED = {"include": [{"class": "umbrella", "count": 1, "color": "red"}]}
PLACED = {
    "include": [
        {"class": "dog", "count": 1},
        {"class": "cup", "count": 1, "position": ["left of", 0]},
    ]
}


def ask(row, answers, questions=QUESTIONS):
    """Verdict of each check on its answer."""
    checks = make_checks(read_checks(row, "here"), questions)
    return [check.is_right(text) for check, text in zip(checks, answers, strict=True)]


def questions_of(row, questions=QUESTIONS):
    return [check.question for check in make_checks(read_checks(row, "here"), questions)]


def test_the_official_form_is_read():
    checks = read_checks(PLACED, "here")
    assert checks.include == (
        Wanted(name="dog"),
        Wanted(name="cup", relation="left of", other="dog"),
    )
    assert checks.names == {"dog", "cup"}
    assert read_checks(COUNTING, "here").exclude == (Wanted(name="clock", count=3),)
    assert read_checks({"include": [{"class": "dog"}]}, "here").include == (Wanted(name="dog"),)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"include": 3},
        {"include": ["dog"]},
        {"include": [{"count": 1}]},
        {"include": [{"class": "dog", "count": 0}]},
        {"include": [{"class": "dog", "count": "many"}]},
        {"include": [{"class": "dog", "count": 1, "position": ["left of", 7]}]},
        {"include": [{"class": "dog", "count": 1, "position": "left"}]},
    ],
)
def test_another_form_is_refused(row):
    with pytest.raises(DataError, match=r"file line 4: include and exclude must be lists"):
        read_checks(row, "file line 4")


def test_nothing_to_check_is_refused():
    with pytest.raises(DataError, match="include is empty"):
        read_checks({"include": []}, "here")


def test_one_object_is_asked_for_by_yes_and_no():
    assert questions_of(SINGLE) == ["Is there a dog in the picture? Answer yes or no."]
    assert ask(SINGLE, ["Yes."]) == [True]
    assert ask(SINGLE, ["No."]) == [False]
    assert ask(SINGLE, ["perhaps"]) == [None]


def test_more_objects_are_counted():
    assert questions_of(COUNTING) == [
        "How many clocks are there in the picture? Answer with a number."
    ]
    for said, is_right in (("1", False), ("two", True), ("3", False), ("a few", None)):
        assert ask(COUNTING, [said]) == [is_right]
    without_most = {"include": COUNTING["include"]}
    assert ask(without_most, ["5"]) == [True]


def test_exactly_one_is_counted_too():
    row = {**SINGLE, "exclude": [{"class": "dog", "count": 2}]}
    assert ask(row, ["1"]) == [True]
    assert ask(row, ["2"]) == [False]


def test_what_is_excluded_alone_must_be_denied_or_few():
    row = {**SINGLE, "exclude": [{"class": "cat", "count": 1}, {"class": "cow", "count": 3}]}
    assert questions_of(row)[1:] == [
        "Is there a cat in the picture? Answer yes or no.",
        "How many cows are there in the picture? Answer with a number.",
    ]
    assert ask(row, ["yes", "no", "2"]) == [True, True, True]
    assert ask(row, ["yes", "yes", "3"]) == [True, False, False]


def test_a_color_is_asked_for_openly():
    assert questions_of(COLORED) == [
        "Is there an umbrella in the picture? Answer yes or no.",
        "What color is the umbrella in the picture? Answer with one word.",
    ]
    assert ask(COLORED, ["yes", "Red"]) == [True, True]
    assert ask(COLORED, ["yes", "blue"]) == [True, False]


def test_a_question_that_names_the_color_needs_no_other_before():
    questions = fill_questions({"color": "Is there a {color} {name}?"})
    assert questions_of(COLORED, questions) == ["Is there a red umbrella?"]
    assert ask(COLORED, ["yes"], questions) == [True]
    assert ask(COLORED, ["no"], questions) == [False]


def test_several_of_a_color_are_counted_with_it():
    row = {"include": [{"class": "cup", "count": 2, "color": "blue"}]}
    assert (
        questions_of(row)[1] == "How many blue cups are there in the picture? Answer with a number."
    )
    assert ask(row, ["3", "2"]) == [True, True]
    assert ask(row, ["3", "1"]) == [True, False]


def test_a_place_is_asked_for_in_both_directions():
    assert questions_of(PLACED)[2:] == [
        "Is the cup to the left of the dog in the picture? Answer yes or no.",
        "Is the cup to the right of the dog in the picture? Answer yes or no.",
    ]
    assert ask(PLACED, ["yes", "yes", "yes", "no"]) == [True] * 4
    assert ask(PLACED, ["yes"] * 4) == [True, True, True, False]
    row = {"include": [*PLACED["include"][:1], {"class": "cup", "position": ["inside of", 0]}]}
    assert questions_of(row)[2:] == [
        "Is the cup inside of the dog in the picture? Answer yes or no."
    ]


def test_the_control_must_be_denied():
    check = control_check("oven")
    assert check.question == "Is there an oven in the picture? Answer yes or no."
    assert check.is_right("no")
    assert check.is_right("yes") is False


def test_wordings_may_be_ones_own():
    questions = fill_questions({"object": "Is there {a_name}?", "count": None})
    assert questions["object"] == "Is there {a_name}?"
    assert questions["count"] == QUESTIONS["count"]
    with pytest.raises(ConfigError, match=r"kind shape.*Known are object, color, count, position"):
        fill_questions({"shape": "?"})
    with pytest.raises(ConfigError, match=r"unknown field .*thing.*\{a_name\}"):
        fill_questions({"object": "Is there {thing}?"})
    with pytest.raises(ConfigError, match=r"names no object.*Put \{name\} in"):
        fill_questions({"object": "Is it there?"})


def test_words_are_put_in_their_form():
    names = ("dog", "bus", "bench", "sandwich", "wine glass", "person", "sheep", "butter knife")
    assert [plural(name) for name in names] == [
        *("dogs", "buses", "benches", "sandwiches", "wine glasses"),
        *("people", "sheep", "butter knives"),
    ]
    assert [with_article(name) for name in ("dog", "Oven")] == ["a dog", "an Oven"]
