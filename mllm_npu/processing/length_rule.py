"""Length rule: how many tokens the layout adds to a conversation's texts and pictures.

Every piece of a conversation is tokenised on its own, so lengths are sums, and a row's length is
known from its index without encoding it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRule:
    """Tokens beside the texts.

    Args:
        opening: before everything.
        default_system: of the template's own system turn, in chats that bring none.
        system_frame: around a system turn.
        user_frame: around a user's turn.
        assistant_frame: around an answer, what ends it included.
        document_end: behind a document.
        read_tile: for each tile that is read.
        drawn_picture: for each picture that is drawn.
        learnt_answer: learnt tokens of the frame of an answer.
    """

    opening: int
    default_system: int
    system_frame: int
    user_frame: int
    assistant_frame: int
    document_end: int
    read_tile: int
    drawn_picture: int
    learnt_answer: int
