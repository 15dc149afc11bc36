"""A conversation as files to keep: JSON that the API takes again, Markdown with its pictures."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

from mllm_npu.serve.page.conversation import Conversation, Picture, Reply
from mllm_npu.serve.page.pictures import PictureStore
from mllm_npu.serve.page.words import Words

VERSION = 1
JSON_NAME, ZIP_NAME = "mllm-npu-chat.json", "mllm-npu-chat.zip"
_PAGE_NAME, _PICTURE_FOLDER = "chat.md", "pictures"
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in an archive: the same chat gives the same archive."""


def to_json(conversation: Conversation, *, model: str, store: PictureStore) -> bytes:
    """The messages in OpenAI's form, pictures in them.

    Raises:
        PictureError: a picture's file has been removed.
    """
    messages = conversation.to_messages(store.data_url)
    value = {"format": "mllm-npu-chat", "version": VERSION, "model": model, "messages": messages}
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def to_zip(conversation: Conversation, *, words: Words, store: PictureStore) -> bytes:
    """A Markdown page and the pictures it shows.

    Raises:
        PictureError: a picture's file has been removed.
    """
    names: dict[Picture, str] = {}

    def name_of(picture: Picture) -> str:
        name = f"{_PICTURE_FOLDER}/{len(names) + 1}{picture.path.suffix}"
        return names.setdefault(picture, name)

    page = to_markdown(conversation, words=words, name_of=name_of)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(_PAGE_NAME), page)
        for picture, name in names.items():
            archive.writestr(_entry(name), store.read(picture))
    return stream.getvalue()


def to_markdown(
    conversation: Conversation, *, words: Words, name_of: Callable[[Picture], str]
) -> str:
    """A page to read.

    Args:
        conversation: what is on it.
        words: of the person's language.
        name_of: gives the file that shows a picture.
    """
    blocks: list[str] = [f"# {words.title}"]
    for exchange in conversation.exchanges:
        blocks.append(f"## {words.you}")
        blocks += [_shown(picture, name_of) for picture in exchange.pictures]
        blocks += [exchange.text] if exchange.text else []
        if exchange.reply is not None:
            blocks += [f"## {words.model}", *_reply(exchange.reply, name_of)]
    return "\n\n".join(blocks) + "\n"


def _reply(reply: Reply, name_of: Callable[[Picture], str]) -> list[str]:
    pieces = [
        piece if isinstance(piece, str) else _shown(piece, name_of) for piece in reply.pieces()
    ]
    marked = [] if reply.marked is None else [_shown(reply.marked, name_of)]
    failure = [f"> {reply.failure}"] if reply.failure else []
    return [*pieces, *marked, *failure]


def _shown(picture: Picture, name_of: Callable[[Picture], str]) -> str:
    return f"![]({name_of(picture)})"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIRST_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
