import pytest

from mllm_npu.inference.events import TextDelta, TokenLogprob
from mllm_npu.inference.spoken_text import SpokenText


def decode(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def speak(text, stops, *, flush=True):
    spoken, said = SpokenText(decode, stops=stops), []
    for byte in text.encode():
        said += spoken.push(byte)
        if spoken.stopped:
            break
    said += spoken.flush() if flush else []
    return [delta.text for delta in said], spoken.stopped


@pytest.mark.parametrize(
    ("text", "stops", "said", "stopped"),
    [
        ("hello", (), "hello", False),
        ("one. two", (". ",), "one", True),
        ("abcabd!", ("abd",), "abc", True),
        ("aaab", ("aab",), "a", True),
        ("数数é", ("数é",), "数", True),
        ("stop", ("stop",), "", True),
        ("a sto", ("stop",), "a sto", False),
        ("xyz", ("yz", "y"), "x", True),
        ("one\n\ntwo", ("three", "\n\n"), "one", True),
    ],
)
def test_text_is_cut_exactly_before_a_stop(text, stops, said, stopped):
    pieces, found = speak(text, stops)
    assert ("".join(pieces), found) == (said, stopped)


def test_nothing_is_said_that_may_have_to_be_taken_back():
    pieces, _ = speak("a st st", ("stop",), flush=False)
    assert pieces == ["a", " ", "st "]


def test_a_stop_inside_of_what_one_token_says():
    spoken = SpokenText(lambda ids: "one END two" if ids else "", stops=("END",))
    assert spoken.push(0) == [TextDelta(text="one ")]
    assert spoken.stopped
    assert spoken.flush() == []


def told(number):
    return TokenLogprob(token_id=number, text="", logprob=-1.0)


def test_probabilities_come_with_the_text_their_token_begins():
    spoken = SpokenText(decode, stops=("xyz",))
    said = []
    for number, byte in enumerate("é!xyw".encode()):
        said += spoken.push(byte, told(number))
    assert [(one.text, [p.token_id for p in one.logprobs]) for one in said] == [
        ("é", [0, 1]),
        ("!", [2]),
        ("xyw", [3, 4, 5]),
    ]


def test_probabilities_of_what_is_cut_away_are_not_told():
    spoken = SpokenText(decode, stops=("xy",))
    said = [one for n, byte in enumerate(b"axy") for one in spoken.push(byte, told(n))]
    assert [[p.token_id for p in one.logprobs] for one in said] == [[0]]
    assert spoken.flush() == []


def test_probabilities_without_text_come_at_the_end():
    spoken = SpokenText(lambda ids: "")
    assert spoken.push(1, told(1)) == []
    assert spoken.flush() == [TextDelta(text="", logprobs=(told(1),))]
