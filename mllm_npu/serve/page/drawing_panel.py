"""The areas for drawing and for changing a picture, as they are laid out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.components import Component

from mllm_npu.serve.page.desk import Desk
from mllm_npu.serve.page.drawing import Area, Drawing, Wish
from mllm_npu.serve.page.examples import Example, examples_for
from mllm_npu.serve.page.settings import MOST_PICTURES
from mllm_npu.serve.page.settings_panel import number_field
from mllm_npu.serve.page.shared import Changes, Shared, Values, bind, session_of
from mllm_npu.serve.page.words import Words

SHOW_RESULT = (
    "() => {{ if (innerWidth <= 640) document.querySelector('#{area}-gallery')"
    ".scrollIntoView({{behavior: 'smooth', block: 'center'}}) }}"
)
"""On a phone the pictures are below the fields."""


class DrawingPanel:
    """Components of an area that draws, and what their events do. Built inside Gradio's blocks.

    Args:
        desk: what the page works with.
        words: of the person's language.
        shared: fields of the page.
        area: "edit" has a field for a picture.
    """

    def __init__(self, *, desk: Desk, words: Words, shared: Shared, area: Area) -> None:
        self._desk, self._words, self._shared, self._area = desk, words, shared, area
        self._drawing = Drawing(desk, words, area=area)
        self._picture: gr.Image | None = None
        self._go_on: gr.Button | None = None
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._lay_out_wish()
                self._lay_out_settings()
                self._lay_out_examples()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_result()
        self._bind()

    def _lay_out_wish(self) -> None:
        words, area = self._words, self._area
        edits = area == "edit"
        if edits:
            self._picture = gr.Image(
                type="filepath",
                format="png",
                sources=["upload", "clipboard"],
                label=words.picture,
                height=240,
                buttons=[],
                elem_id="edit-picture",
            )
        self._prompt = gr.Textbox(
            label=words.instruction if edits else words.prompt,
            placeholder=words.instruction_hint if edits else words.prompt_hint,
            lines=2,
            max_lines=6,
            elem_id=f"{area}-prompt",
        )
        with gr.Row(elem_classes="buttons"):
            label = words.start_editing if edits else words.start_drawing
            self._start = gr.Button(label, variant="primary", elem_id=f"{area}-start")
            self._stop = gr.Button(
                words.stop, variant="stop", interactive=False, elem_id=f"{area}-stop"
            )
        self._number = gr.Slider(
            1, MOST_PICTURES, value=1, step=1, label=words.number, elem_id=f"{area}-number"
        )

    def _lay_out_settings(self) -> None:
        words, area = self._words, self._area
        folded = gr.Accordion(words.settings, open=False, elem_id=f"{area}-settings")
        with folded, gr.Row():
            self._seed = number_field(words.seed, words.thrown, name=f"{area}-seed")
            self._steps = number_field(words.steps, words.as_model, name=f"{area}-steps")
            self._guidance = number_field(words.guidance, words.as_model, name=f"{area}-guidance")
            self._image_guidance = number_field(
                words.image_guidance,
                words.as_model,
                name=f"{area}-image-guidance",
                visible=area == "edit",
            )

    def _lay_out_examples(self) -> None:
        words, area = self._words, self._area
        shown: list[Component] = [self._prompt]
        if self._picture is not None:
            shown.insert(0, self._picture)
        self._examples = gr.Dataset(
            components=shown,
            samples=self._samples(""),
            type="index",
            label=words.examples,
            elem_id=f"{area}-examples",
        )

    def _lay_out_result(self) -> None:
        words, area = self._words, self._area
        self._notice = gr.HTML(elem_id=f"{area}-notice", elem_classes="quiet")
        self._gallery = gr.Gallery(
            label=words.result if area == "edit" else words.results,
            columns=2,
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"{area}-gallery",
            elem_classes="results",
        )
        # What the browser says of a file is not believed: it could name any file of this machine.
        self._made = gr.State([])
        if area == "edit":
            self._go_on = gr.Button(words.use_result, size="sm", elem_id="edit-go-on")

    def _bind(self) -> None:
        fields = [self._seed, self._number, self._steps, self._guidance, self._image_guidance]
        read: list[Component] = [self._prompt, self._shared.model, self._shared.key, *fields]
        read += [] if self._picture is None else [self._picture]
        buttons = [self._start, self._stop]
        for event in (self._start.click, self._prompt.submit):
            began = bind(event, self._begin, (), buttons)
            began.then(None, None, None, js=SHOW_RESULT.format(area=self._area))
            made = bind(began.then, self._make, read, [self._gallery, self._notice, self._made])
            bind(made.then, self._rest, (), buttons)
        bind(self._stop.click, self._end, (), (), queue=False)
        bind(self._shared.model.change, self._offer, [self._shared.model], [self._examples])
        chosen = [self._prompt, *([] if self._picture is None else [self._picture])]
        read_example = [self._examples, self._shared.model]
        bind(self._examples.click, self._take_example, read_example, chosen)
        if self._go_on is not None:
            bind(self._go_on.click, self._use_result, [self._made], chosen)

    async def _begin(self) -> Changes:
        return {self._start: gr.Button(interactive=False), self._stop: gr.Button(interactive=True)}

    async def _rest(self) -> Changes:
        return {self._start: gr.Button(interactive=True), self._stop: gr.Button(interactive=False)}

    async def _end(self, request: gr.Request) -> None:
        self._drawing.stop(session_of(request))

    async def _make(self, values: Values, request: gr.Request) -> AsyncIterator[Changes]:
        wish = Wish(
            model=values[self._shared.model] or "",
            prompt=values[self._prompt] or "",
            picture=None if self._picture is None else values[self._picture],
            seed=values[self._seed] or "",
            number=values[self._number],
            steps=values[self._steps] or "",
            guidance=values[self._guidance] or "",
            image_guidance=values[self._image_guidance] or "",
        )
        key, session = values[self._shared.key], session_of(request)
        async for shown in self._drawing.make(wish, key=key, session=session):
            paths = [str(picture.shown) for picture in shown.pictures]
            yield {
                self._gallery: list(zip(paths, shown.captions, strict=True)),
                self._notice: shown.notice,
                self._made: [str(picture.path) for picture in shown.pictures],
            }

    async def _offer(self, values: Values) -> Changes:
        """Offer what the chosen model can draw."""
        samples = self._samples(values[self._shared.model])
        return {self._examples: gr.Dataset(samples=samples, visible=bool(samples))}

    async def _take_example(self, values: Values) -> Changes:
        offered = self._offered(values[self._shared.model])
        example = offered[int(values[self._examples]) % len(offered)]
        changes: Changes = {self._prompt: example.text}
        if self._picture is not None:
            changes[self._picture] = self._file(example.pictures[0])
        return changes

    async def _use_result(self, values: Values) -> Changes:
        made = values[self._made]
        if self._picture is None or not made:
            return {self._prompt: gr.skip()}
        return {self._picture: made[0]}

    def _offered(self, model: str | None) -> tuple[Example, ...]:
        examples = examples_for(model, self._words)
        return examples.edits if self._area == "edit" else examples.drawings

    def _samples(self, model: str | None) -> list[list[Any]]:
        return [
            [*(self._file(data) for data in example.pictures), example.text]
            for example in self._offered(model)
        ]

    def _file(self, data: bytes) -> str:
        return str(self._desk.pictures.take_bytes(data).path)
