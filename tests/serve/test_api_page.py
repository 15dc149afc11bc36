"""The page of the API: everything is on it, and nothing in it is markup."""

from mllm_npu.serve.api_page import render_api

DESCRIPTION = {
    "info": {"title": "a <b>title</b>"},
    "paths": {
        "/ask": {
            "post": {
                "description": "Say <i>it</i>.",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Q"}}}
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
                },
            }
        }
    },
}


def test_every_field_is_described():
    page = render_api(DESCRIPTION)
    for piece in ("/ask", "POST", "/plain", "(required)", "integer from 1", "Part", "GET"):
        assert piece in page
    assert "null" not in page


def test_no_text_becomes_markup():
    page = render_api(DESCRIPTION)
    assert "<i>" not in page
    assert "&lt;i&gt;it&lt;/i&gt;" in page
    assert "a | &lt;b&gt;" in page
    assert "<h1>a &lt;b&gt;title&lt;/b&gt;</h1>" in page
