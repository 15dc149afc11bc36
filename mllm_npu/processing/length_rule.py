"""Length rule: how many tokens the layout adds to a conversation's texts and pictures.

Every piece of a conversation is tokenised on its own, so lengths are sums, and a row's length is
known from its index without encoding it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from mllm_npu.processing.chat_template import ChatTemplate


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
        read_picture: behind each picture that is read.
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
    # Plans are told apart by how a rule is written, and those without such tokens stay the same.
    read_picture: int = field(default=0, repr=False)

    @classmethod
    def of(
        cls,
        template: ChatTemplate,
        *,
        count: Callable[[str], int],
        opening: int,
        read_tile: int,
        drawn_picture: int,
    ) -> Self:
        """The rule of a chat template.

        Args:
            template: its frames.
            count: gives the tokens of a fixed string.
            opening: tokens before everything.
            read_tile: tokens of a read tile.
            drawn_picture: tokens of a drawn picture.
        """
        system, user, assistant, _ = (count(a) + count(b) for a, b in template.frames)
        _, suffix = template.frames[2]
        ends, own_system = int(template.close_with_eos), count(template.system)
        gap = count(template.assistant_gap)
        return cls(
            opening=opening,
            default_system=system + own_system if own_system else 0,
            system_frame=system,
            user_frame=user,
            assistant_frame=assistant + gap + ends,
            document_end=1,
            read_tile=read_tile,
            drawn_picture=drawn_picture,
            learnt_answer=count(suffix) * template.learn_suffix + gap + ends,
            read_picture=count(template.picture_suffix),
        )
