"""A chat as files: what is in them can be read, and asked again."""

import io
import json
import zipfile

import pytest

from mllm_npu.serve.openai_models import ChatRequest
from mllm_npu.serve.page.conversation import Conversation, Drawn, Reply
from mllm_npu.serve.page.history import to_json, to_markdown, to_zip
from mllm_npu.serve.page.pictures import PictureError
from mllm_npu.serve.page.words import CHINESE, ENGLISH


@pytest.fixture
def store(make_desk):
    return make_desk().pictures


@pytest.fixture
def chat(store, png):
    read, drawn = store.take_bytes(png((20, 20))), store.take_bytes(png((16, 16), color="blue"))
    asked = Conversation().ask("Which is it?", (read,))
    reply = Reply(text="This:  yes", drawn=(Drawn(picture=drawn, offset=6),))
    return asked.answer(reply).ask("and?").answer(Reply(failure="It broke."))


def test_json_is_a_request_again(store, chat):
    saved = json.loads(to_json(chat, model="digits", store=store))
    assert (saved["format"], saved["version"], saved["model"]) == ("mllm-npu-chat", 1, "digits")
    request = ChatRequest(model=saved["model"], messages=saved["messages"])
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]


def test_the_archive_holds_a_page_and_its_pictures(store, chat):
    data = to_zip(chat, words=ENGLISH, store=store)
    assert data == to_zip(chat, words=ENGLISH, store=store)
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.namelist() == ["chat.md", "pictures/1.png", "pictures/2.png"]
    assert archive.testzip() is None
    assert archive.read("pictures/1.png") == chat.exchanges[0].pictures[0].path.read_bytes()
    assert archive.read("chat.md").decode() == (
        "# mllm-npu\n\n## You\n\n![](pictures/1.png)\n\nWhich is it?\n\n"
        "## Model\n\nThis: \n\n![](pictures/2.png)\n\n yes\n\n"
        "## You\n\nand?\n\n## Model\n\n> It broke.\n"
    )


def test_a_picture_that_is_there_twice_is_one_file(store, png):
    again = store.take_bytes(png())
    chat = Conversation().ask("a", (again, again)).answer(Reply(text="b", marked=again))
    names = zipfile.ZipFile(io.BytesIO(to_zip(chat, words=CHINESE, store=store))).namelist()
    assert names == ["chat.md", "pictures/1.png"]


def test_the_page_is_in_the_persons_language(chat):
    page = to_markdown(chat, words=CHINESE, name_of=lambda picture: picture.path.name)
    assert "## 你" in page
    assert "## 模型" in page


def test_a_picture_that_was_removed_is_told(store, chat):
    chat.exchanges[0].pictures[0].path.unlink()
    with pytest.raises(PictureError):
        to_zip(chat, words=ENGLISH, store=store)
    with pytest.raises(PictureError):
        to_json(chat, model="a", store=store)
