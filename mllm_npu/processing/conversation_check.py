"""Conversation check: what no layout can be made of, refused in the words its reader needs."""

from __future__ import annotations

from mllm_npu.errors import RequestError, SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, Role, Text


def check_turns(conversation: Conversation, *, reply: bool) -> None:
    """Refuse a conversation without turns, an empty turn, and a picture where none can be.

    Raises:
        SkipSample: for a training sample.
        RequestError: where a reply was asked for.
    """
    if not conversation.turns:
        refuse("The conversation has no turns", "give at least one.", reply=reply)
    for turn in conversation.turns:
        if not any(not isinstance(part, Text) or part.text.strip() for part in turn.parts):
            refuse(
                f"The {turn.role} turn is empty",
                "it has neither text nor a picture. Write something, or leave the turn out.",
                reply=reply,
            )
        for part in turn.parts:
            _check_picture(part, turn.role, reply=reply)


def _check_picture(part: Part, role: Role, *, reply: bool) -> None:
    if isinstance(part, Text):
        return
    if not min(part.picture.size):
        refuse("A picture has no pixels", "give one that is at least 1x1.", reply=reply)
    if isinstance(part, DrawnImage) and role in ("system", "user"):
        refuse(
            f"A picture is drawn in a {role} turn",
            "only the assistant and documents draw. Make it a picture that is read.",
            reply=reply,
        )


def refuse(
    reason: str, advice: str, *, reply: bool, kind: type[RequestError] = RequestError
) -> None:
    """Raise; a skipped sample is counted by its reason, so that one names no single row."""
    if reply:
        raise kind(f"{reason}: {advice}")
    raise SkipSample(reason)
