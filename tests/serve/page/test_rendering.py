"""Rendering: text is never markup, and everything of a reply is shown in its order."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mllm_npu.serve.page.conversation import Box, Conversation, Drawn, Picture, Reply
from mllm_npu.serve.page.rendering import formatted, notice, plain, to_chat
from mllm_npu.serve.page.words import ENGLISH

NASTY = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a <b>c</b> & d &lt;e&gt; \"f\" 'g'",
    "<!-- --> <![CDATA[x]]> <?php ?> </div></span>",
    "`<i>` and\n\n```html\n<script>x</script>\n```\n\n    <u>indented</u>",
    "| a | b |\n|---|---|\n| ` | <img src=x> ` |",
    "[x](javascript:alert(1)) [y](data:text/html,<script>) <javascript:alert(1)>",
    "![x](http://192.0.2.1/a.png) ![y][z]\n\n[z]: http://192.0.2.1/b.png",
    "[a](http://b \"onclick='x'\"><img src=x>)",
    "<svg/onload=alert(1)>\n<style>*{display:none}</style>\n<a href=x>y</a>",
    "<unclosed `<b` ~~<s~~ **<c**",
)
HARMLESS = {
    *("div", "span", "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "a"),
    *("ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


class Tags(HTMLParser):
    """Elements and attributes of a piece of HTML, and the text that is seen."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.links = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name == "href"]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", NASTY)
def test_what_a_person_writes_shows_letter_by_letter(text):
    tags = Tags(plain(text))
    assert (tags.tags, tags.text) == ({"span"}, text)


@pytest.mark.parametrize("text", NASTY)
def test_what_a_model_writes_makes_no_elements_of_its_own(text):
    tags = Tags(formatted(text))
    assert tags.tags <= HARMLESS
    assert tags.attributes <= {"class", "href", "target", "rel", "title", "start", "style"}
    assert not any(link.startswith(("javascript:", "data:")) for link in tags.links)


@pytest.mark.parametrize("text", NASTY[:4])
def test_html_of_a_model_is_seen_as_text(text):
    seen = Tags(formatted(text)).text
    assert html.unescape(text).replace(" ", "") in seen.replace(" ", "").replace("\n", "")


def test_markdown_of_a_model_is_shown():
    shown = formatted("**a** `b`\nnext\n\n- c\n\n~~d~~ [e](http://f)")
    for piece in ("<strong>a</strong>", "<code>b</code>", "<br", "<li>c</li>", "<s>d</s>"):
        assert piece in shown
    assert re.search(r'<a href="http://f" target="_blank" rel="noopener[^"]*">e</a>', shown)


@pytest.mark.parametrize("text", NASTY)
def test_a_notice_is_text(text):
    assert Tags(notice(text)).text == text
    assert notice("") == ""
    assert 'class="notice hint"' in notice("a", kind="hint")


def picture(name):
    return Picture(path=Path(name), shown=Path(f"{name}-large"), width=1, height=1)


def shown(reply, *, waiting=""):
    """What a reply shows: markup of texts, paths of files."""
    asked = Conversation().ask("q", (picture("p"),)).answer(reply)
    question, answer = to_chat(asked, ENGLISH, waiting=waiting)
    assert question["content"] == [
        {"path": "p-large"},
        {"type": "text", "text": '<span class="plain">q</span>'},
    ]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    return [part.get("text", part.get("path")) for part in answer["content"]]


def test_a_question_waits_alone():
    (message,) = to_chat(Conversation().ask("q"), ENGLISH)
    assert message["role"] == "user"


def test_a_reply_is_shown_in_its_order():
    drawn = (Drawn(picture=picture("d"), offset=1),)
    boxes = (Box(x0=0, y0=0, x1=1, y1=1, label="猫"),)
    reply = Reply(text="ab", drawn=drawn, boxes=boxes, marked=picture("m"), ending="stop")
    first, second, third, fourth, fifth = shown(reply)
    assert ("a" in first, second, "b" in third, fourth) == (True, "d-large", True, "m-large")
    assert "猫" in fifth


def test_how_it_stands_is_told():
    assert "dots" in shown(Reply())[0]
    assert "3 ahead &lt;" in shown(Reply(), waiting="3 ahead <")[0]
    assert len(shown(Reply(text="a"), waiting="3 ahead")) == 1
    assert "Stopped." in shown(Reply(text="a", ending="stopped"))[1]
    assert "longest reply" in shown(Reply(text="a", ending="length"))[1]
    assert ENGLISH.nothing_said in shown(Reply(ending="stop"))[0]
    half, failure = shown(Reply(text="a", failure="It <broke>.", ending="length"))
    assert "a" in half
    assert "It &lt;broke&gt;." in failure
