"""The fields for settings: text fields that may stay empty, and then nothing is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from mllm_npu.serve.page.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsPanel:
    """Fields of ``Settings``, in the order in which ``read_settings`` takes them."""

    temperature: gr.Textbox
    top_p: gr.Textbox
    max_tokens: gr.Textbox
    seed: gr.Textbox
    images: gr.Radio

    @property
    def fields(self) -> list[Component]:
        """All of them."""
        return [self.temperature, self.top_p, self.max_tokens, self.seed, self.images]


def make_settings_panel(words: Words, *, name: str) -> SettingsPanel:
    """Lay the fields out, folded away.

    Args:
        words: of the person's language.
        name: of the area, for the names of the elements.
    """
    with gr.Accordion(words.settings, open=False, elem_id=f"{name}-settings"):
        with gr.Row():
            temperature = number_field(
                words.temperature, words.as_model, name=f"{name}-temperature"
            )
            top_p = number_field(words.top_p, words.as_model, name=f"{name}-top-p")
            max_tokens = number_field(words.max_tokens, words.as_model, name=f"{name}-max-tokens")
            seed = number_field(words.seed, words.thrown, name=f"{name}-seed")
        choices = [
            (words.images_auto, "auto"),
            (words.images_force, "force"),
            (words.images_forbid, "forbid"),
        ]
        images = gr.Radio(choices, value="auto", label=words.images, elem_id=f"{name}-images")
    return SettingsPanel(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed, images=images
    )


def number_field(label: str, empty: str, *, name: str, visible: bool = True) -> gr.Textbox:
    """A field for a number that may stay empty.

    Args:
        label: of the field.
        empty: what it means that it is.
        name: of the element.
        visible: whether it is there.
    """
    return gr.Textbox(
        label=label,
        placeholder=empty,
        max_lines=1,
        max_length=24,
        min_width=130,
        visible=visible,
        elem_id=name,
        html_attributes=gr.InputHTMLAttributes(autocorrect="off", spellcheck=False),
    )
