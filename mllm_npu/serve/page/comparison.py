"""Two models side by side: they get the same questions at the same time."""

from __future__ import annotations

import gradio as gr

from mllm_npu.serve.page.chat import Chat
from mllm_npu.serve.page.chat_panel import ChatPanel
from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.shared import Shared, model_field
from mllm_npu.serve.page.words import Words


class Comparison:
    """The area for comparing. Built inside Gradio's blocks.

    Args:
        desk: what the page works with.
        words: of the person's language.
        shared: fields of the page.
    """

    def __init__(self, *, desk: Desk, words: Words, shared: Shared) -> None:
        with gr.Row(elem_classes="pair"):
            self.models = [
                model_field(label, name=name)
                for label, name in (
                    (words.first_model, "compare-first"),
                    (words.second_model, "compare-second"),
                )
            ]
        self.panel = ChatPanel(
            desk=desk,
            words=words,
            chat=Chat(desk, words, places=("left", "right")),
            shared=shared,
            models=self.models,
            name="compare",
        )
