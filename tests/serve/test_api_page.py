"""The page of the API: everything is on it, every name leads somewhere, nothing in it is markup."""

import re

from mllm_npu.serve.api_page import render_api

DESCRIPTION = {
    "info": {"title": "a <b>title</b>"},
    "paths": {
        "/ask": {
            "post": {
                "description": "Say <i>it</i> in ``text``.",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Q"}}}
                },
                "responses": {
                    "200": {
                        "description": "The <u>reply</u>",
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Part"}},
                            "text/event-stream": {
                                "itemSchema": {
                                    "properties": {
                                        "data": {
                                            "type": "string",
                                            "contentSchema": {"$ref": "#/components/schemas/Q"},
                                        }
                                    }
                                }
                            },
                        },
                    },
                    "401": {"description": "A key is needed"},
                },
            }
        },
        "/plain": {"get": {"summary": "Plain"}},
    },
    "components": {
        "schemas": {
            "Q": {
                "required": ["text"],
                "properties": {
                    "text": {"type": "string"},
                    "n": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
                    "kind": {"enum": ["a", "<b>"]},
                    "part": {"$ref": "#/components/schemas/Part"},
                    "only": {"const": "x"},
                    "parts": {
                        "type": "array",
                        "items": {"oneOf": [{"$ref": "#/components/schemas/Part"}]},
                    },
                },
            },
            "Part": {"description": "A <s>piece</s>.", "properties": {"word": {"type": "string"}}},
        }
    },
}


def test_every_field_is_described():
    page = render_api(DESCRIPTION)
    for piece in ("/ask", "POST", "/plain", "(required)", "integer from 1", "Part", "GET"):
        assert piece in page
    assert "null" not in page


def test_every_reply_is_described():
    page = render_api(DESCRIPTION)
    part, question = (f'<a href="#{name}">{name}</a>' for name in ("Part", "Q"))
    assert f"application/json: {part}; text/event-stream: {question}" in page
    assert "<code>401</code></td><td>A key is needed</td>" in page
    assert f"<td>list of {part}</td>" in page


def test_every_name_leads_to_its_description():
    page = render_api(DESCRIPTION)
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(re.findall(r'id="(\w+)"', page))
    assert '<h3 id="Part">' in page
    assert "<code>word</code>" in page


def test_no_text_becomes_markup():
    page = render_api(DESCRIPTION)
    for mark in ("<i>", "<u>", "<s>"):
        assert mark not in page
    assert "&lt;i&gt;it&lt;/i&gt; in <code>text</code>." in page
    assert "a | &lt;b&gt;" in page
    assert "<h1>a &lt;b&gt;title&lt;/b&gt;</h1>" in page
