"""Put turns into their frames: which fixed strings stand around what each side says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from mllm_npu.errors import ConfigError
from mllm_npu.processing.conversation import Conversation, Part, ReadImage, Role, Text, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A fixed string of the template; the only text that may spell control tokens."""

    text: str
    learn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A text or picture of a turn, with the turn's answer to whether it is learnt."""

    part: Part
    learn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end-of-text token."""

    learn: bool


Piece = Frame | Said | End


class ChatTemplate:
    """Role frames as plain strings; each string and each text is tokenised on its own.

    Without arguments there are no frames: turns follow each other as they are, as in pre-training.
    Document turns have no frame in any template.

    Args:
        system: system text of a conversation that brings none; "" for none.
        system_prefix: before the system text.
        system_suffix: after it.
        user_prefix: before what the user says.
        user_suffix: after it.
        assistant_prefix: before what the assistant says; never learnt, it is given to the model.
        assistant_suffix: after it.
        assistant_gap: between assistant_prefix and what the assistant says, learnt with that; it is
            left out where the assistant is to go on, as in ``ASSISTANT:`` before `` A cat``.
        picture_suffix: after a picture that is read, such as a line break.
        suffix_each_picture: whether it follows every one of several pictures side by side, or the
            last of them.
        learn_suffix: whether assistant_suffix is learnt where the turn is.
        close_with_eos: whether the end-of-text token follows assistant_suffix. False where the
            suffix spells the token that ends an answer, as in ``<|im_end|>``. A document at the end
            of a conversation is closed by it in any case.

    Raises:
        ConfigError: Nothing would ever end an answer.
    """

    def __init__(
        self,
        *,
        system: str = "",
        system_prefix: str = "",
        system_suffix: str = "",
        user_prefix: str = "",
        user_suffix: str = "",
        assistant_prefix: str = "",
        assistant_suffix: str = "",
        assistant_gap: str = "",
        picture_suffix: str = "",
        suffix_each_picture: bool = True,
        learn_suffix: bool = True,
        close_with_eos: bool = True,
    ) -> None:
        if not close_with_eos and not (assistant_suffix and learn_suffix):
            raise ConfigError(
                "A chat template with close_with_eos=False was asked for, its assistant_suffix is "
                "empty or not learnt, so the model would never learn to stop. Set close_with_eos, "
                "or give a suffix that ends an answer and learn_suffix=True."
            )
        self.system = system
        self.assistant_gap = assistant_gap
        self.picture_suffix = picture_suffix
        self.suffix_each_picture = suffix_each_picture
        self.learn_suffix = learn_suffix
        self.close_with_eos = close_with_eos
        self._frames: dict[Role, tuple[str, str]] = {
            "system": (system_prefix, system_suffix),
            "user": (user_prefix, user_suffix),
            "assistant": (assistant_prefix, assistant_suffix),
            "document": ("", ""),
        }

    @property
    def frames(self) -> tuple[tuple[str, str], ...]:
        """Prefix and suffix of every role."""
        return tuple(self._frames.values())

    def render(self, conversation: Conversation, *, reply: bool) -> Iterator[Piece]:
        """Lay the turns out in order.

        Args:
            conversation: turns of any roles.
            reply: whether the assistant speaks next. Then its frame is opened behind a user's or
                system's turn, and a last turn of the assistant or of a document is left open.
        """
        turns = conversation.turns
        chat = any(turn.role in ("user", "assistant") for turn in turns)
        if self.system and chat and all(turn.role != "system" for turn in turns):
            turn = Turn(role="system", parts=(Text(text=self.system),))
            yield from self._render_turn(turn, is_open=False)
        for number, turn in enumerate(turns, start=1):
            yield from self._render_turn(turn, is_open=reply and number == len(turns))
        last = turns[-1]
        if reply and last.role in ("user", "system"):
            yield Frame(text=self._frames["assistant"][0])
        elif not reply and last.role != "assistant" and (last.role == "document" or not chat):
            yield End(learn=last.learn)

    def _render_turn(self, turn: Turn, *, is_open: bool) -> Iterator[Piece]:
        prefix, suffix = self._frames[turn.role]
        if prefix:
            yield Frame(text=prefix)
        if self.assistant_gap and turn.role == "assistant":
            yield Frame(text=self.assistant_gap, learn=turn.learn)
        for part, after in itertools.zip_longest(turn.parts, turn.parts[1:]):
            yield Said(part=part, learn=turn.learn)
            is_last = self.suffix_each_picture or not isinstance(after, ReadImage)
            if self.picture_suffix and isinstance(part, ReadImage) and is_last:
                yield Frame(text=self.picture_suffix)
        speaks = turn.role == "assistant"
        if is_open and speaks:
            return
        if suffix:
            yield Frame(text=suffix, learn=speaks and turn.learn and self.learn_suffix)
        if speaks and self.close_with_eos:
            yield End(learn=turn.learn)


RAW = ChatTemplate()
"""No frames: the layout of the original's captions, OCR rows, interleaved pages and plain text."""

INSTRUCT = ChatTemplate(user_prefix="[INST] ", user_suffix=" [/INST]\n")
"""The layout SEED-X was tuned with."""
