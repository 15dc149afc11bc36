"""Talk to a model in the terminal: text as it comes, drawn pictures saved and shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console

from mllm_npu.errors import MllmNpuError, RequestError
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_files import open_pictures, save_picture
from mllm_npu.inference.terminal_picture import Way, find_way, show_picture
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, ReadImage, Text, Turn
from mllm_npu.processing.grounding import Box, draw_boxes
from mllm_npu.processing.raster import to_pillow

HELP = "/image PATH adds a picture to the next turn · /reset forgets the talk · /quit leaves"


@dataclass(kw_only=True)
class TerminalChat:
    """One talk: the turns so far and the pictures that wait for the next one.

    Args:
        engine: answers.
        options: how it answers.
        folder: where drawn pictures are saved.
        console: where the talk is shown.
        pictures: how pictures are shown.
    """

    engine: Engine
    options: GenerationOptions
    folder: Path
    console: Console = field(default_factory=lambda: Console(highlight=False))
    pictures: Way = Way.AUTO
    turns: list[Turn] = field(default_factory=list)
    waiting: list[Image.Image] = field(default_factory=list)
    num_drawn: int = 0

    def run(self, read_line: Callable[[str], str] = input) -> None:
        """Answer line after line until /quit or the end of input; a refusal does not end it."""
        self.console.print(HELP, style="dim")
        while True:
            try:
                line = read_line("you> ").strip()
            except EOFError:
                return
            if line == "/quit":
                return
            try:
                self._take(line)
            except MllmNpuError as error:
                said = f"{type(error).__name__}: {error}"
                self.console.print(said, style="red", markup=False, highlight=False)

    def _take(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/image":
            self.waiting.extend(open_pictures([Path(rest.strip()).expanduser()]))
            self.show(self.waiting[-1])
        elif command == "/reset":
            self.turns.clear()
            self.waiting.clear()
        elif command == "/help":
            self.console.print(HELP, style="dim")
        elif command.startswith("/"):
            raise RequestError(f"{command} is no command. There are: {HELP}")
        else:
            self.answer(line)

    def answer(self, line: str) -> None:
        """Put one user turn, show the reply as it comes and keep both for the next turn."""
        pictures: tuple[Part, ...] = tuple(ReadImage(picture=picture) for picture in self.waiting)
        words: tuple[Part, ...] = (Text(text=line),) if line else ()
        asked = Turn(role="user", parts=(*pictures, *words))
        said: list[Part] = []
        for event in self.engine.stream(Conversation(turns=(*self.turns, asked)), self.options):
            match event:
                case TextDelta(text=text):
                    self.console.print(text, end="", markup=False)
                    said = _append(said, text)
                case ImageMade(picture=picture):
                    self.console.print()
                    self.show(picture)
                    self._name("picture", picture)
                    said.append(DrawnImage(picture=picture))
                case Finished(boxes=boxes):
                    self.console.print()
                    self._mark(boxes)
        self.waiting.clear()
        # A reply of nothing is no turn: the next question would be refused because of it.
        if any(not isinstance(part, Text) or part.text.strip() for part in said):
            self.turns += [asked, Turn(role="assistant", parts=tuple(said))]

    def show(self, picture: Image.Image) -> None:
        """Print a picture, where the terminal can show one."""
        way = find_way(self.pictures, console=self.console, variables=os.environ)
        show_picture(picture, way=way, console=self.console)

    def _mark(self, boxes: Sequence[Box]) -> None:
        """Show and save the last picture with the boxes a reply names in it."""
        shown = [part for turn in self.turns for part in turn.parts if isinstance(part, ReadImage)]
        pictures = [*(to_pillow(part.picture) for part in shown), *self.waiting]
        if boxes and pictures:
            marked = draw_boxes(pictures[-1], boxes)
            self.show(marked)
            self._name("boxes", marked)

    def _name(self, what: str, picture: Image.Image) -> None:
        """Save a picture and say where; a path is not broken into lines."""
        said = f"{what}: {self._save(picture)}"
        self.console.print(said, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _save(self, picture: Image.Image) -> Path:
        while (path := self.folder / f"picture-{self.num_drawn:03d}.png").exists():
            self.num_drawn += 1
        return save_picture(picture, path)


def _append(parts: list[Part], text: str) -> list[Part]:
    """Text grows by deltas, and is kept as one piece: pieces of a word have other tokens."""
    if parts and isinstance(last := parts[-1], Text):
        return [*parts[:-1], Text(text=last.text + text)]
    return [*parts, Text(text=text)]


def chat(
    engine: Engine,
    *,
    options: GenerationOptions,
    pictures: Sequence[Image.Image],
    folder: Path,
    show: str = Way.AUTO,
) -> None:
    """Run a talk on this process's terminal.

    Args:
        engine: answers.
        options: how it answers.
        pictures: wait for the first turn.
        folder: where drawn pictures are saved.
        show: how pictures are shown, a value of ``Way``.
    """
    talk = TerminalChat(engine=engine, options=options, folder=folder, pictures=Way(show))
    talk.waiting.extend(pictures)
    talk.run()
