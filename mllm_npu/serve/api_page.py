"""The API for people: one page made of the OpenAPI description, without scripts or other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{font-size:1rem;margin:2rem 0 .3rem;overflow-wrap:anywhere}
code,b{font-family:ui-monospace,monospace;font-size:.9em}
b{background:#e8eefc;border-radius:.3rem;padding:.1rem .4rem;margin-right:.4rem}
table{border-collapse:collapse;width:100%}td{border-top:1px solid #ddd;padding:.2rem .5rem .2rem 0}
td:first-child{white-space:nowrap}p{margin:.3rem 0;white-space:pre-line}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}b{background:#2a3a5c}
td{border-color:#333}a{color:#8ab4f8}}
"""


def render_api(description: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI description; every text in it is escaped.

    Args:
        description: as ``FastAPI.openapi`` gives it.
    """
    title = escape(str(description["info"]["title"]))
    body = "".join(_operations(description))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{body}</body></html>'
    )


def _operations(description: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            said = escape(str(operation.get("description") or operation.get("summary") or ""))
            yield f"<h2><b>{escape(method.upper())}</b>{escape(path)}</h2><p>{said}</p>"
            rows = "".join(_fields(operation, description))
            yield f"<table>{rows}</table>" if rows else ""


def _fields(operation: Mapping[str, Any], description: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    for kind in content.values():
        schema = _resolve(kind.get("schema", {}), description)
        required = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            needed = " (required)" if name in required else ""
            kind_of = escape(_kind(field, description))
            yield f"<tr><td><code>{escape(name)}</code>{needed}</td><td>{kind_of}</td></tr>"


def _kind(field: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """A few words about what a field holds."""
    if "anyOf" in field:
        kinds = [_kind(option, description) for option in field["anyOf"]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if "enum" in field or "const" in field:
        return " | ".join(str(value) for value in field.get("enum", [field.get("const")]))
    bounds = [
        f"{word} {field[key]}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in field
    ]
    return " ".join([str(field.get("type", "object")), *bounds])


def _resolve(schema: Mapping[str, Any], description: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = str(reference).rpartition("/")[2]
    found: Mapping[str, Any] = description["components"]["schemas"][name]
    return found
