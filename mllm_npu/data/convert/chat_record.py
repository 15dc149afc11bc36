"""Chat records: LLaVA, ShareGPT and OpenAI conversations to the messages of an instruction row."""

from __future__ import annotations

from typing import Any

from mllm_npu.data.convert.chat_turns import ChatTurn, Image, read_turns
from mllm_npu.data.convert.picture_source import PictureSource, first_of
from mllm_npu.data.convert.record_kind import PictureMembers, Record, RecordKind, encode_json
from mllm_npu.errors import SkipSample

_CONVERSATIONS = ("conversations", "messages", "conversation", "texts")
_PICTURES = ("images", "image")


class ChatRecord(RecordKind):
    r"""``{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}``.

    ``<image>`` stands where the next of the record's pictures goes. A single picture that no turn
    gives a place goes before the first question. Pictures in turns of the assistant are drawn.
    """

    name = "chat"
    aliases = ("llava", "sharegpt", "openai")
    summary = "LLaVA, ShareGPT or OpenAI messages as JSON or jsonl"

    def recognises(self, record: Record) -> bool:
        """A list of objects under the name of a conversation."""
        listed = first_of(record, _CONVERSATIONS)
        if isinstance(listed, dict):
            return all(isinstance(value, list) for value in listed.values())
        return isinstance(listed, list) and isinstance(listed[0], dict)

    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """The pictures by number, and the messages."""
        turns = read_turns(first_of(record, _CONVERSATIONS))
        system = record.get("system")
        if isinstance(system, str) and system.strip() and turns[0].role != "system":
            turns.insert(0, ChatTurn(role="system", parts=(system,)))
        if not any(turn.role == "assistant" for turn in turns):
            raise SkipSample("no answer to learn")
        turns = _place(turns, _listed_pictures(record))
        numbered = PictureMembers(pictures=pictures)
        messages = [{"role": t.role, "content": _content(t, numbered)} for t in turns]
        values = {"messages": messages}
        return {**numbered.members(), "json": encode_json(values, record=record)}


def _listed_pictures(record: Record) -> list[Any]:
    value = first_of(record, _PICTURES)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _place(turns: list[ChatTurn], listed: list[Any]) -> list[ChatTurn]:
    """Give every place without a picture of its own the next of the listed ones."""
    images = [part for turn in turns for part in turn.parts if isinstance(part, Image)]
    named = [image.reference for image in images if image.reference is not None]
    places = len(images) - len(named)
    if len(listed) == 1 and not images:
        first = next((n for n, turn in enumerate(turns) if turn.role == "user"), None)
        if first is None:
            raise SkipSample("no question that the picture belongs to")
        turns = [*turns]
        turns[first] = ChatTurn(role="user", parts=(Image(), *turns[first].parts))
    elif places != len(listed) and (places or any(one not in named for one in listed)):
        found = f"{places} places, {len(listed)} pictures"
        raise SkipSample(f"places and pictures differ in number: {found}")
    remaining = iter(listed)
    return [
        ChatTurn(
            role=turn.role,
            parts=tuple(
                Image(reference=next(remaining))
                if isinstance(part, Image) and part.reference is None
                else part
                for part in turn.parts
            ),
        )
        for turn in turns
    ]


def _content(turn: ChatTurn, pictures: PictureMembers) -> str | list[dict[str, str]]:
    if len(turn.parts) == 1 and isinstance(turn.parts[0], str):
        return turn.parts[0]
    return [
        {"type": "image", "image": pictures.add(part.reference)}
        if isinstance(part, Image)
        else {"type": "text", "text": part}
        for part in turn.parts
    ]
