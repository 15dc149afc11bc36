"""The API for people: one page made of the OpenAPI description, without scripts or other hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter()

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
h2,h3{font-size:1rem;margin:2rem 0 .3rem;overflow-wrap:anywhere}
code,b{font-family:ui-monospace,monospace;font-size:.9em}
b{background:#e8eefc;border-radius:.3rem;padding:.1rem .4rem;margin-right:.4rem}
table{border-collapse:collapse;width:100%}td{border-top:1px solid #ddd;padding:.2rem .5rem .2rem 0}
td:first-child{white-space:nowrap}p{margin:.3rem 0;white-space:pre-line}
table+table{margin-top:.6rem}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}b{background:#2a3a5c}
td{border-color:#333}a{color:#8ab4f8}}
"""
_CODE = re.compile(r"`+([^`]+)`+")

Values = Mapping[str, Any]


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API for people; /openapi.json is the same for programs."""
    page = render_api(request.app.openapi())
    return HTMLResponse(page, headers={"content-security-policy": POLICY})


def render_api(description: Values) -> str:
    """HTML of an OpenAPI description; every text in it is escaped.

    Args:
        description: as ``FastAPI.openapi`` gives it.
    """
    title = escape(str(description["info"]["title"]))
    body = "".join((*_operations(description), *_schemas(description)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{body}</body></html>'
    )


def _operations(description: Values) -> Iterator[str]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            said = _words(operation.get("description") or operation.get("summary") or "")
            yield f"<h2><b>{escape(method.upper())}</b>{escape(path)}</h2><p>{said}</p>"
            for kind in operation.get("requestBody", {}).get("content", {}).values():
                yield _table(_fields(_resolve(kind.get("schema", {}), description)))
            replies = operation.get("responses", {}).items()
            yield _table(_row(status, _reply(reply)) for status, reply in replies)


def _schemas(description: Values) -> Iterator[str]:
    """What the operations refer to by name."""
    for name, schema in description.get("components", {}).get("schemas", {}).items():
        said = _words(schema.get("description", ""))
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{said}</p>'
        yield _table(_fields(schema))


def _words(text: str) -> str:
    """Text of a docstring; HTML."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _table(rows: Iterator[str]) -> str:
    body = "".join(rows)
    return f"<table>{body}</table>" if body else ""


def _row(name: str, said: str, more: str = "") -> str:
    return f"<tr><td><code>{escape(name)}</code>{more}</td><td>{said}</td></tr>"


def _fields(schema: Values) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield _row(name, _kind(field), " (required)" if name in required else "")


def _reply(reply: Values) -> str:
    """What a reply is, and in which forms it comes."""
    forms = []
    for media_type, kind in reply.get("content", {}).items():
        held = kind.get("schema") or kind.get("itemSchema", {}).get("properties", {}).get("data")
        forms.append(f"{escape(media_type)}: {_kind(held or {})}")
    return "; ".join([escape(str(reply.get("description", ""))), *forms])


def _kind(field: Values) -> str:
    """A few words about what a field holds; HTML."""
    if "contentSchema" in field:
        return _kind(field["contentSchema"])
    for choice in ("anyOf", "oneOf"):
        if choice in field:
            kinds = [_kind(option) for option in field[choice]]
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "$ref" in field:
        name = escape(str(field["$ref"].rpartition("/")[2]))
        return f'<a href="#{name}">{name}</a>'
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return escape(" | ".join(str(value) for value in values))
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    bounds = [
        f"{word} {field[key]}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in field
    ]
    return escape(" ".join([str(field.get("type", "object")), *bounds]))


def _resolve(schema: Values, description: Values) -> Values:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = str(reference).rpartition("/")[2]
    found: Values = description["components"]["schemas"][name]
    return found
