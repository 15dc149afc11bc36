"""The fields that all areas of the page read, and how events of the page are bound."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

Changes = dict[Component, Any]
"""New values, or new properties, of some components."""
Values = dict[Component, Any]
"""What the components hold that a function reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Components that every area reads.

    Args:
        tab: the name under which the server keeps what this browser tab has.
        key: the person's API key; "" where none is needed.
        model: that is asked.
    """

    tab: gr.Textbox
    key: gr.Textbox
    model: gr.Dropdown


def bind(
    event: Callable[..., Dependency],
    function: Callable[..., Any],
    inputs: Iterable[Component],
    outputs: Sequence[Component],
    *,
    queue: bool = True,
) -> Dependency:
    """Call a function at an event; it takes a dict of values and gives a dict of changes.

    Args:
        event: of a component, or ``then`` of another event.
        function: is called with the values, and the request where it asks for it.
        inputs: whose values it takes.
        outputs: that it may change.
        queue: False calls it past the queue, at once.
    """
    return event(
        function,
        inputs=set(inputs) or None,
        outputs=list(outputs),
        queue=queue,
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )


def model_field(label: str, *, name: str) -> gr.Dropdown:
    """A field for a model.

    What it holds is taken as it is: after a while Gradio forgets which choices a page was given.

    Args:
        label: of the field.
        name: of the element.
    """
    return gr.Dropdown([], label=label, elem_id=name, min_width=140, allow_custom_value=True)


def tab_of(value: str | None, request: gr.Request) -> str:
    """The name of a browser tab; one that lasts as long as its page where it was given none."""
    return value or hashlib.sha256(session_of(request).encode()).hexdigest()[:32]


def session_of(request: gr.Request) -> str:
    """The name of a loaded page; another one after it is loaded again."""
    return str(request.session_hash)
