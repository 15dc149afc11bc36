"""Conversations: exchanges in order, and the form the API takes."""

from pathlib import Path

from mllm_npu.serve.page.conversation import Conversation, Drawn, Picture, Reply


def picture(name):
    return Picture(path=Path(name), shown=Path(name), width=1, height=1)


def read(each):
    return f"data:{each.path}"


A, B = picture("a"), picture("b")


def text(words):
    return {"type": "text", "text": words}


def image(name):
    return {"type": "image_url", "image_url": {"url": f"data:{name}"}}


def test_pictures_of_a_question_come_before_its_text():
    messages = Conversation().ask("which?", (A, B)).to_messages(read)
    assert messages == [{"role": "user", "content": [image("a"), image("b"), text("which?")]}]
    assert Conversation().ask("", (A,)).to_messages(read)[0]["content"] == [image("a")]


def test_pictures_of_a_reply_stand_where_they_were_drawn():
    drawn = (Drawn(picture=A, offset=2), Drawn(picture=B, offset=2))
    reply = Reply(text="a: b", drawn=drawn)
    assert list(reply.pieces()) == ["a:", A, B, " b"]
    assert list(Reply(drawn=(Drawn(picture=A, offset=9),)).pieces()) == [A]
    messages = Conversation().ask("draw").answer(reply).to_messages(read)
    parts = [text("a:"), image("a"), image("b"), text(" b")]
    assert messages[1] == {"role": "assistant", "content": parts}


def test_what_failed_is_not_sent_but_a_last_question_is():
    failed = Conversation().ask("one").answer(Reply(failure="no"))
    assert [m["role"] for m in failed.ask("two").to_messages(read)] == ["user"]
    assert failed.ask("two").to_messages(read)[0]["content"] == [text("two")]
    assert failed.to_messages(read)[0]["content"] == [text("one")]


def test_a_stopped_reply_is_sent():
    stopped = Conversation().ask("one").answer(Reply(text="half", ending="stopped"))
    assert stopped.ask("two").to_messages(read)[1]["content"] == [text("half")]


def test_waiting_answering_undoing():
    asked = Conversation().ask("one")
    assert asked.waits
    assert not Conversation().waits
    answered = asked.answer(Reply(text="1"))
    assert not answered.waits
    assert answered.answer(None) == asked
    assert answered.undo() == Conversation() == Conversation().undo()


def test_boxes_are_in_the_picture_read_last():
    read_twice = Conversation().ask("a", (A, B)).answer(Reply(text="1")).ask("where?")
    assert read_twice.last_picture() == B
    assert Conversation().ask("a").last_picture() is None


def test_a_reply_is_empty_without_text_and_pictures():
    assert Reply(failure="no", ending="stop").is_empty
    assert not Reply(text="a").is_empty
    assert not Reply(drawn=(Drawn(picture=A, offset=0),)).is_empty
