import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.terminal import TerminalChat
from mllm_npu.inference.terminal_picture import Way
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text


class ScriptedEngine:
    """Stands in for the engine: says what it was asked, draws when asked to."""

    def __init__(self):
        self.asked = []

    def stream(self, conversation, options):
        self.asked.append(conversation)
        words = conversation.turns[-1].parts[-1].text
        if words == "refuse":
            raise RequestError("the prompt is refused")
        if words == "silence":
            yield Finished(reason="stop", num_prompt_tokens=1, num_new_tokens=1, num_pictures=0)
            return
        yield TextDelta(text="you said")
        yield TextDelta(text=f" {words}")
        if words == "draw":
            yield ImageMade(picture=Image.new("RGB", (4, 4), "red"), features=None)
        yield Finished(reason="stop", num_prompt_tokens=1, num_new_tokens=1, num_pictures=0)


@pytest.fixture
def talk(tmp_path, monkeypatch):
    for name in ("TERM", "TERM_PROGRAM", "KITTY_WINDOW_ID", "LC_TERMINAL", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    out = io.StringIO()
    return TerminalChat(
        engine=ScriptedEngine(),
        options=GenerationOptions(),
        folder=tmp_path / "pictures",
        console=Console(file=out, force_terminal=True, color_system="truecolor", width=80),
    )


def run(talk: TerminalChat, *lines: str) -> str:
    waiting = iter(lines)

    def read_line(_prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    talk.run(read_line)
    return talk.console.file.getvalue()


def test_turns_are_kept_for_the_next_one(talk):
    shown = run(talk, "hello", "again", "/quit", "never read")
    assert "you said hello" in shown
    assert [turn.role for turn in talk.engine.asked[1].turns] == ["user", "assistant", "user"]
    assert len(talk.engine.asked) == 2


def test_a_drawn_picture_is_saved_shown_and_kept(talk, tmp_path: Path):
    shown = run(talk, "draw", "draw")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "picture-000.png",
        "picture-001.png",
    ]
    assert "▀" in shown
    assert isinstance(talk.turns[1].parts[-1], DrawnImage)


@pytest.mark.parametrize(
    ("way", "mark"), [(Way.KITTY, "\x1b_G"), (Way.SIXEL, "\x1bP"), (Way.OFF, "")]
)
def test_pictures_are_shown_in_the_way_that_was_asked_for(talk, way, mark):
    talk.pictures = way
    shown = run(talk, "draw")
    assert mark in shown
    assert "▀" not in shown
    assert "picture-000.png" in shown


def test_a_picture_waits_for_one_turn_only(talk, tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "in.png")
    run(talk, f"/image {tmp_path / 'in.png'}", "what?", "and now?")
    first, second = talk.engine.asked
    assert isinstance(first.turns[0].parts[0], ReadImage)
    assert [type(part) for part in second.turns[-1].parts] == [Text]


def test_reset_forgets(talk):
    run(talk, "hello", "/reset", "new")
    assert len(talk.engine.asked[1].turns) == 1


def test_a_refusal_is_shown_and_the_talk_goes_on(talk):
    shown = run(talk, "refuse", "hello")
    assert "the prompt is refused" in shown
    assert "you said hello" in shown
    assert len(talk.turns) == 2


def test_a_picture_that_is_not_there_does_not_end_the_talk(talk):
    shown = run(talk, "/image /nowhere/cat.png", "hello")
    assert "was asked for and is not there" in shown
    assert "you said hello" in shown


def test_deltas_are_kept_as_one_text(talk):
    run(talk, "draw")
    assert talk.turns[1].parts[0] == Text(text="you said draw")
    assert len(talk.turns[1].parts) == 2


def test_a_reply_of_nothing_is_forgotten(talk):
    run(talk, "silence", "hello")
    assert [len(asked.turns) for asked in talk.engine.asked] == [1, 1]


def test_a_mistyped_command_is_not_put_to_the_model(talk):
    shown = run(talk, "/imgae cat.png")
    assert "/imgae is no command" in shown
    assert talk.engine.asked == []
