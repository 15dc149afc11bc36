"""Write a chat template as the Jinja program that transformers and vLLM render.

It renders a message's pictures where they stand among its texts, as conversations are laid out
here.
"""

from __future__ import annotations

import json

from mllm_npu.processing.chat_template import ChatTemplate

_HEAD = """\
{%- macro said(content, gap) -%}
{%- if content is string -%}{{ gap + content }}
{%- else -%}
{{- gap if content else '' -}}
{%- for part in content -%}
{%- if part.type == 'image' -%}
{{- IMAGE -}}
{%- if EACH or loop.last or loop.nextitem.type != 'image' -%}{{- SUFFIX -}}{%- endif -%}
{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
_SYSTEM = """\
{%- if messages and messages[0].role != 'system' -%}{{- SYSTEM -}}{%- endif -%}
"""
_TURN = """\
{%- if message.role == 'ROLE' -%}
{{- BEFORE -}}{{- said(message.content, GAP) -}}{{- AFTER -}}
{%- endif -%}
"""


def make_jinja(template: ChatTemplate, image_token: str, *, eos_token: str = "") -> str:
    """The program of a chat template.

    Args:
        template: its frames.
        image_token: stands for a picture.
        eos_token: spelling of the end-of-text token, which follows an answer where the template
            says so; empty leaves it to the tokenizer's ``eos_token``.
    """
    end = json.dumps(eos_token) if eos_token else "eos_token"
    system, user, assistant, _ = template.frames
    head = (
        _HEAD.replace("IMAGE", json.dumps(image_token))
        .replace("EACH", "true" if template.suffix_each_picture else "false")
        .replace("SUFFIX", json.dumps(template.picture_suffix))
    )
    closing = f"{json.dumps(assistant[1])} + {end}" if template.close_with_eos else ""
    turns = [
        _turn("system", json.dumps(system[0]), '""', json.dumps(system[1])),
        _turn("user", json.dumps(user[0]), '""', json.dumps(user[1])),
        _turn(
            "assistant",
            json.dumps(assistant[0]),
            json.dumps(template.assistant_gap),
            closing or json.dumps(assistant[1]),
        ),
    ]
    own = "".join((system[0], template.system, system[1])) if template.system else ""
    return (
        head
        + (_SYSTEM.replace("SYSTEM", json.dumps(own)) if own else "")
        + "{%- for message in messages -%}\n"
        + "".join(turns)
        + "{%- endfor -%}\n"
        + "{%- if add_generation_prompt -%}{{- "
        + json.dumps(assistant[0])
        + " -}}{%- endif -%}\n"
    )


def _turn(role: str, before: str, gap: str, after: str) -> str:
    return (
        _TURN.replace("ROLE", role)
        .replace("BEFORE", before)
        .replace("GAP", gap)
        .replace("AFTER", after)
    )
