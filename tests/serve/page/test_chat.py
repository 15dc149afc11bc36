"""What happens in a chat, without a browser."""

import json

import pytest

from mllm_npu.serve.page.chat import Chat
from mllm_npu.serve.page.examples import Example
from mllm_npu.serve.page.stream import Ends, Says
from mllm_npu.serve.page.words import ENGLISH

EMPTY = ["", "", "", "", "auto"]


class Visitor:
    """A person in a tab."""

    def __init__(self, desk, run, *, places=("chat",)):
        self.desk, self.run = desk, run
        self.chat = Chat(desk, ENGLISH, places=places)
        self.tab = desk.tabs.open()
        self.models = ["m"] * len(places)

    def take(self, text, files=(), *, fields=EMPTY, models=None):
        message = {"text": text, "files": [str(file) for file in files]}
        models = self.models if models is None else models
        return self.run(self.chat.take(message, self.tab, models, fields, "session"))

    def answer(self, *, fields=EMPTY):
        return self.run(self.chat.answer(self.tab, self.models, "", fields, "session"))

    @property
    def exchanges(self):
        return self.desk.tabs.get(self.tab, "chat").exchanges


@pytest.fixture
def visitor(make_desk, run):
    return lambda *scripts, **how: Visitor(make_desk(*scripts), run, **how)


SAID = [Says(text="Yes"), Ends(reason="stop")]


def test_a_question_is_taken_and_answered(visitor, tmp_path, png):
    person = visitor(SAID)
    (tmp_path / "a.png").write_bytes(png())
    shown, said = person.take("  hi ", [tmp_path / "a.png"])
    assert said == ""
    assert len(shown[0]) == 1
    assert len(person.answer()[-1][0]) == 2
    (exchange,) = person.exchanges
    assert (exchange.text, len(exchange.pictures), exchange.reply.text) == ("hi", 1, "Yes")


def test_what_cannot_be_asked_is_told_and_not_kept(visitor, tmp_path):
    person = visitor()
    (tmp_path / "a.png").write_text("no picture")
    for taken, words in (
        (person.take(" "), ENGLISH.nothing_asked),
        (person.take("hi", models=[""]), ENGLISH.no_model),
        (person.take("hi", fields=["hot", "", "", "", "auto"]), "Temperature: give a number"),
        (person.take("hi", [tmp_path / "a.png"]), "This file is no picture"),
    ):
        assert taken[0] is None
        assert words in taken[1]
    assert person.exchanges == ()
    assert person.run(person.chat.take(None, person.tab, ["m"], EMPTY, "s"))[0] is None


def test_nothing_is_taken_or_changed_while_a_reply_is_made(visitor):
    person = visitor(SAID)
    person.take("one")
    with person.desk.running.begin("session", "chat"):
        assert person.take("two") == (None, "")
        example = Example(text="three")
        taken = person.run(person.chat.take_example(example, person.tab, ["m"], "session"))
        assert taken == (None, "")
        person.chat.clear(person.tab, "session")
        person.chat.undo(person.tab, "session")
        assert person.answer() == []
    assert len(person.exchanges) == 1
    assert person.exchanges[0].reply is None


def test_nothing_is_answered_where_nothing_waits(visitor):
    person = visitor(SAID)
    assert person.answer() == []
    person.take("one")
    person.answer()
    assert person.answer() == []


def test_retry_undo_clear(visitor, png, tmp_path):
    person = visitor(SAID, [Says(text="No")])
    (tmp_path / "a.png").write_bytes(png())
    person.take("one", [tmp_path / "a.png"])
    person.answer()
    person.chat.retry(person.tab, "session")
    person.answer()
    assert person.exchanges[0].reply.text == "No"
    shown, question = person.chat.undo(person.tab, "session")
    assert (shown, question["text"], len(question["files"])) == ([[]], "one", 1)
    assert person.chat.undo(person.tab, "session")[1] == {"text": "", "files": []}
    person.take("two")
    assert person.chat.clear(person.tab, "session") == [[]]
    assert person.chat.retry(person.tab, "session") == [[]]


def test_settings_that_became_nonsense_fail_the_reply(visitor):
    person = visitor()
    person.take("one")
    person.answer(fields=["hot", "", "", "", "auto"])
    assert "Temperature" in person.exchanges[0].reply.failure


def test_an_example_is_a_question(visitor, png):
    person = visitor(SAID)
    example = Example(text="Which?", pictures=(png(),))
    person.run(person.chat.take_example(example, person.tab, ["m"], "session"))
    assert (person.exchanges[0].text, len(person.exchanges[0].pictures)) == ("Which?", 1)
    refused = person.run(person.chat.take_example(example, person.tab, [""], "session"))
    assert ENGLISH.no_model in refused[1]


def test_two_chats_hear_the_same(visitor):
    person = visitor([Says(text="A")], [Says(text="B")], places=("left", "right"))
    person.take("hi")
    left, right = person.answer()[-1]
    assert "A" in str(left)
    assert "B" in str(right)
    assert person.chat.clear(person.tab, "session") == [[], []]


def test_saving(visitor):
    person = visitor(SAID)
    assert person.chat.save(person.tab, "m", "json")[0] is None
    person.take("one")
    person.answer()
    path, said = person.chat.save(person.tab, "m", "json")
    assert (path.name, said) == ("mllm-npu-chat.json", "")
    assert json.loads(path.read_text())["model"] == "m"
    assert person.chat.save(person.tab, "m", "zip")[0].name == "mllm-npu-chat.zip"


def test_saving_tells_that_a_picture_is_gone(visitor, png, tmp_path):
    person = visitor()
    (tmp_path / "a.png").write_bytes(png())
    person.take("one", [tmp_path / "a.png"])
    person.exchanges[0].pictures[0].path.unlink()
    path, said = person.chat.save(person.tab, "m", "zip")
    assert path is None
    assert ENGLISH.picture_gone in said
