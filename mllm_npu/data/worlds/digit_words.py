"""Digit words: every sentence of the digits world, for training and for evaluation only.

A wording has one slot ``{d}`` for a digit, as figure or as word. Wordings in the ``UNSEEN`` tuples
are never composed for training; their words are ordinary and known from other sentences.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)

CAPTION = "a handwritten {d}"
"""One wording only: the vision encoder learns from which texts of a batch differ, and two wordings
of the same digit would count as different things."""

_OPENERS = (
    *("", "Please ", "Now ", "Go ahead and ", "Try to ", "I want you to ", "I would like you to "),
    *("Next, ", "Be so kind and ", "It is time to ", "You may now ", "For the next picture, "),
)
_QUESTION_OPENERS = (
    *("Could you ", "Can you ", "Would you ", "Will you ", "Could you please ", "Can you please "),
    "Would it be possible that you ",
)
_VERBS = (
    *("draw ", "paint ", "sketch ", "write ", "make ", "show ", "create ", "produce ", "generate "),
    *("write down ", "show me ", "draw me ", "give me ", "let me see "),
)
_OBJECTS = (
    *("a {d}", "the digit {d}", "the number {d}", "a handwritten {d}", "a nice {d}", "a clear {d}"),
    *("a picture of a {d}", "an image of a {d}", "a drawing of the number {d}", "the figure {d}"),
    *("a picture of the digit {d}", "a small {d}", "another {d}", "{d}"),
)
_TAILS = (
    *("", "", "", " for me", " here", " by hand", " on the page", " as an image", " with a pen"),
    *(" for my class", " once again", " in white on black", " if you can", " for a happy child"),
)
_FREE_DRAW = (
    "{d}, please.",
    "The digit {d}, drawn by hand.",
    "A picture of a {d}, please.",
    "I need a {d}.",
    "I need the number {d} for the page.",
    "How does a {d} look?",
    "What does the digit {d} look like?",
    "How do you write a {d}?",
    "{d} is the digit I want to see.",
    "{d} is what you should draw.",
    "My teacher asks for a {d}; draw it.",
    "Think of a {d} and draw it.",
    "I am thinking of the digit {d}. Show it.",
    "The next picture is a {d}. Draw it.",
    "Of all numbers I like {d}. Paint it for me.",
    "There should be a {d} on this page, so sketch it.",
    "Take a pen and draw the number {d}.",
    "If you were a child, how would you write {d}?",
    "A {d} is missing here. Please write it.",
    "An image of the number {d} would make me happy.",
    "Let it be a {d} this time, drawn by you.",
    "What I want is the digit {d}, as a picture.",
    "Draw it by hand: {d}.",
    "The best digit of all is {d}. Draw it again.",
)

UNSEEN_DRAW = (
    "Let me look at a {d} that you paint by hand.",
    "Here I need the number {d}, so draw it please.",
    "The page is for a {d}, so would you sketch it here?",
    "How would you draw the digit {d} by hand?",
    "I am thinking of a {d}; show it as an image.",
    "Make me happy with a nice picture: the digit {d}.",
    "An image is what I want, and it should be a {d}.",
    "Of all digits I like {d} best, please sketch it.",
    "My teacher would like to see {d} drawn with a pen.",
    "Can the number {d} be drawn by you?",
    "It is time for a picture again: a handwritten {d}.",
    "What would a small {d} look like on the page?",
)

_READ_OPENERS = (
    *("", "Please ", "Now ", "Could you please ", "Can you ", "Would you ", "I want you to "),
    *("Look at the image and ", "Look here and ", "Take a look and ", "Be so kind and "),
)
_READ_VERBS = ("read ", "name ", "tell me ", "say ", "recognize ", "identify ", "write down ")
_READ_OBJECTS = (
    *("the digit", "the number", "this digit", "this number", "the digit in the picture"),
    *("the number on the page", "the handwritten digit", "which digit this is", "what you see"),
    *("what number is shown", "the digit you see", "which number it is", "what is written here"),
    *("the number that was written", "what digit the picture shows", "the digit of this image"),
)
_READ_QUESTIONS = (
    *("which digit is this", "what digit is this", "which number is this", "what number is this"),
    *("what number is shown", "which digit is shown here", "what number do you see"),
    *("which digit do you see in the picture", "what is written here", "what does it say"),
    *("which digit was written by hand", "what does the picture show", "which digit is it"),
    *("what is the number on the page", "do you know this digit", "what do you see on this page"),
    *("the digit in the picture is called what", "what does this page show", "which one is it"),
    *("which digit has somebody drawn", "what figure is in the image", "is there a digit to see"),
    *("how do you call this number", "what would you call the digit", "which number did I write"),
)
_READ_STARTS = (
    *(
        "",
        "",
        "",
        "look at the image. ",
        "tell me, ",
        "here is a picture: ",
        "so ",
        "a quick one: ",
    ),
    *("I wonder, ", "look: ", "please help me, ", "one more scan. "),
)
UNSEEN_READ = (
    "Look at the picture and tell me the digit.",
    "Which number was written here?",
    "Please say what digit you see.",
    "Can you name the digit in this image?",
    "What number is it that the page shows?",
    "Do you see which digit this is?",
)

SUM = (
    "What is the sum of the two digits?",
    "What is the sum?",
    "Add the two numbers.",
    "Add both digits.",
    "What do the digits add up to?",
    "How much is it if you add them?",
    "Please give me the sum of both numbers.",
    "Tell me the sum of the digits in the pictures.",
    "How much do the two pictures make together?",
    "Can you add these digits?",
    "What is the first number plus the second number?",
    "The first digit plus the second digit is what?",
    "Read both digits and add them.",
    "Calculate the sum of the two numbers you see.",
)
LARGER = (
    "Which digit is larger?",
    "Which of the two numbers is larger?",
    "Name the larger digit.",
    "Tell me the larger number.",
    "What is the larger one of the two digits?",
    "Read both digits. Which one is larger?",
    "Which picture shows the larger number, and what is it?",
    "Please give me the larger of both digits.",
)
DRAW_LARGER = (
    "Draw the larger digit.",
    "Please draw the larger of the two numbers.",
    "Write the larger digit again.",
    "Show me the larger number once more.",
)
STRIP = (
    "Read the digits.",
    "Which digits are these?",
    "What digits do you see?",
    "Read all digits from left to right.",
    "What is written in the picture?",
    "Which number is written here?",
    "Please read the row of digits.",
    "Tell me all digits in the image.",
    "Name the digits one after the other.",
    "What does this row of numbers say?",
    "Can you read these digits?",
    "Write down the digits you see.",
)
DRAW_SAME = (
    "Now draw the same digit.",
    "Please draw it again.",
    "Write that digit once more.",
    "Show me another one of it.",
)
DRAW_NEXT = (
    "Now draw the next digit.",
    "Please draw the number that comes after it.",
    "Write the digit that follows.",
    "Show me the next number as a picture.",
)
DRAWN_REMARKS = ("Here is a {d}.", "This is the digit {d}.", "Here you are: a {d}.", "A {d}:")

SUM_DOCUMENTS = ("the sum is {n}.", "together they make {n}.", "added up this is {n}.")
LARGER_DOCUMENTS = ("the larger digit is {n}.", "the larger one of them is {n}.")
DRAW_DOCUMENTS = ("the larger digit, drawn again:", "this is the larger one once more:")
FIRST_JOINS = ("", "first ", "here is a digit: ", "look at ")
SECOND_JOINS = (" and ", " then ", " and another digit: ", ", ")
LAST_JOINS = (": ", ". ", " - ")


def draw_wordings() -> tuple[str, ...]:
    """All training wordings that ask for a drawn digit."""
    pieces = itertools.product(_VERBS, _OBJECTS, dict.fromkeys(_TAILS))
    composed: dict[str, None] = {}
    for verb, thing, tail in pieces:
        for opener in _OPENERS:
            composed[_capital(f"{opener}{verb}{thing}{tail}.")] = None
        for opener in _QUESTION_OPENERS:
            composed[_capital(f"{opener}{verb}{thing}{tail}?")] = None
    return (*composed, *_FREE_DRAW)


def read_wordings() -> tuple[str, ...]:
    """All training wordings that ask which digit a picture shows."""
    orders = itertools.product(_READ_OPENERS, _READ_VERBS, _READ_OBJECTS)
    questions = itertools.product(dict.fromkeys(_READ_STARTS), _READ_QUESTIONS)
    composed = dict.fromkeys(_capital(f"{''.join(order)}.") for order in orders)
    composed |= dict.fromkeys(_capital(f"{''.join(question)}?") for question in questions)
    return tuple(composed)


def choose_read_wording(rng: Random) -> str:
    """One training wording, half of them questions."""
    if rng.random() < 0.5:
        return _capital(rng.choice(_READ_STARTS) + rng.choice(_READ_QUESTIONS) + "?")
    order = rng.choice(_READ_OPENERS) + rng.choice(_READ_VERBS) + rng.choice(_READ_OBJECTS)
    return _capital(order + ".")


def choose_draw_wording(rng: Random) -> str:
    """One training wording, every fourth of them outside the grammar."""
    if rng.random() < 0.25:
        return rng.choice(_FREE_DRAW)
    asks = rng.random() < 0.3
    opener = rng.choice(_QUESTION_OPENERS if asks else _OPENERS)
    sentence = opener + rng.choice(_VERBS) + rng.choice(_OBJECTS) + rng.choice(_TAILS)
    return _capital(sentence + ("?" if asks else "."))


def fill(wording: str, digit: int, *, as_word: bool = True) -> str:
    """Put a digit into the slot of a wording, with the article it wants."""
    name = NUMBERS[digit] if as_word else str(digit)
    if digit == 8:
        for article in ("a", "A"):
            at_start = wording.startswith(f"{article} {{d}}")
            wording = wording.replace(f" {article} {{d}}", f" {article}n {{d}}")
            wording = f"{article}n{wording[1:]}" if at_start else wording
    return wording.replace("{d}", name)


def loosen(sentence: str, rng: Random) -> str:
    """How people type: sometimes without capitals, sometimes without the last mark."""
    if rng.random() < 0.25:
        sentence = sentence.lower()
    if rng.random() < 0.15:
        sentence = sentence.rstrip(".?")
    return sentence


def number_sentences() -> Iterator[str]:
    """Sentences about numbers: sums, differences, comparisons, counting, names of figures."""
    for a, b in itertools.product(range(10), repeat=2):
        first, second, total = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
        yield f"{first} plus {second} is {total}."
        yield f"the sum of {first} and {second} is {total}."
        yield f"{first} and {second} make {total} together."
        yield f"if you add {second} to {first}, you get {total}."
        yield f"what is {first} plus {second}? {total}."
        yield f"add {first} and {second}: {total}."
        if a >= b:
            yield f"{first} minus {second} is {NUMBERS[a - b]}."
            yield f"take {second} from {first} and {NUMBERS[a - b]} is left."
        if a > b:
            yield f"{first} is larger than {second}."
            yield f"the larger of {second} and {first} is {first}."
            yield f"{second} is smaller than {first}."
            yield f"which is larger, {first} or {second}? {first}."
        yield f"{a} plus {b} is {total}."
    for start, length in itertools.product(range(len(NUMBERS)), range(3, 7)):
        run = NUMBERS[start : start + length]
        if len(run) == length:
            yield f"count on: {', '.join(run)}."
            yield f"count back: {', '.join(reversed(run))}."
    for number in range(9):
        yield f"after {NUMBERS[number]} comes {NUMBERS[number + 1]}."
    for digit in range(10):
        yield f"{digit} is the digit {NUMBERS[digit]}."
        yield f"the figure {digit} is read {NUMBERS[digit]}."


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
