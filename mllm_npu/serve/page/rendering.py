"""A conversation as the chat shows it: text can never become markup, whoever wrote it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from mllm_npu.serve.page.boxes import legend
from mllm_npu.serve.page.conversation import Conversation, Exchange, Picture, Reply
from mllm_npu.serve.page.words import Words

Content = dict[str, Any]


def _make_markdown() -> MarkdownIt:
    """Markdown whose HTML is text, and whose pictures are links: nothing is fetched by itself."""
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    markdown.enable(["table", "strikethrough"])
    markdown.disable(["image"])
    markdown.add_render_rule("link_open", _open_link)
    return markdown


def _open_link(renderer: Any, tokens: list[Token], index: int, options: Any, _: Any) -> str:
    """Links open beside the page, which would lose what is being made in it."""
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    opening: str = renderer.renderToken(tokens, index, options, {})
    return opening


_MARKDOWN = _make_markdown()


def plain(text: str) -> str:
    """Text as HTML that shows it letter by letter."""
    return f'<span class="plain">{html.escape(text)}</span>'


def formatted(text: str) -> str:
    """A model's Markdown as HTML; HTML in it shows as text."""
    return f'<div class="formatted">{_MARKDOWN.render(text)}</div>'


def notice(text: str, *, kind: str = "failure") -> str:
    """A line about how things are.

    Args:
        text: what it says; "" for none.
        kind: ``failure`` or ``hint``.
    """
    return f'<div class="notice {kind}" role="status">{html.escape(text)}</div>' if text else ""


def to_chat(conversation: Conversation, words: Words, *, waiting: str = "") -> list[Content]:
    """The messages of Gradio's chat.

    Args:
        conversation: what is shown.
        words: of the person's language.
        waiting: what stands where the reply will be, while nothing of it is there.
    """
    messages: list[Content] = []
    for exchange in conversation.exchanges:
        messages.append({"role": "user", "content": list(_question(exchange))})
        if exchange.reply is not None:
            content = list(_reply(exchange.reply, words, waiting))
            messages.append({"role": "assistant", "content": content})
    return messages


def _question(exchange: Exchange) -> Iterator[Content]:
    for picture in exchange.pictures:
        yield _file(picture)
    if exchange.text:
        yield _text(plain(exchange.text))


def _reply(reply: Reply, words: Words, waiting: str) -> Iterator[Content]:
    for piece in reply.pieces():
        yield _file(piece) if isinstance(piece, Picture) else _text(formatted(piece))
    if reply.marked is not None:
        yield _file(reply.marked)
        if labels := legend(reply.boxes):
            yield _text(plain(labels))
    if reply.failure:
        yield _text(notice(reply.failure))
    elif reply.ending in words.endings:
        yield _text(notice(words.endings[reply.ending], kind="hint"))
    elif reply.is_empty and reply.ending:
        yield _text(notice(words.nothing_said, kind="hint"))
    elif reply.is_empty:
        dots = '<span class="dots"><i></i><i></i><i></i></span>'
        yield _text(f'<span class="waiting">{dots}{html.escape(waiting)}</span>')


def _text(markup: str) -> Content:
    return {"type": "text", "text": markup}


def _file(picture: Picture) -> Content:
    return {"path": str(picture.shown)}
