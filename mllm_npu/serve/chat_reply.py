"""Turn the events of replies into OpenAI's forms: one object, or the pieces of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from anyio import to_thread

from mllm_npu.inference.events import Event, Finished, ImageMade, TextDelta, TokenLogprob
from mllm_npu.serve.pictures_out import to_data_url

LEAST_LOGPROB = -9999.0
"""Of a token that cannot be; JSON has no infinity."""


@dataclass(slots=True)
class Usage:
    """Tokens of a request: of its question once, of all its choices."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, end: Finished) -> None:
        """Count one choice."""
        self.prompt_tokens = end.num_prompt_tokens
        self.completion_tokens += end.num_new_tokens

    def to_json(self) -> dict[str, int]:
        """OpenAI's form."""
        total = self.prompt_tokens + self.completion_tokens
        return asdict(self) | {"total_tokens": total}


@dataclass(slots=True, kw_only=True)
class Choice:
    """One reply as far as it is made.

    Args:
        index: place among the choices.
        usage: of the request.
    """

    index: int
    usage: Usage
    texts: list[str] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: Finished | None = None
    num_characters: int = 0

    async def take(self, event: Event) -> dict[str, Any] | None:
        """Add an event; gives what a stream says about it, None where it is the end."""
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                self.texts.append(text)
                self.num_characters += len(text)
                self.logprobs.extend(logprobs)
                return {"content": text}
            case ImageMade(picture=picture):
                image = {
                    "type": "image_url",
                    "image_url": {"url": await to_thread.run_sync(to_data_url, picture)},
                    "index": len(self.images),
                    "offset": self.num_characters,
                    "width": picture.width,
                    "height": picture.height,
                }
                self.images.append(image)
                return {"images": [image]}
            case Finished():
                self.end = event
                self.usage.add(event)
        return None

    def boxes(self) -> list[dict[str, Any]]:
        """Places in the picture that the reply names."""
        return [asdict(box) for box in self.end.boxes] if self.end else []

    def to_json(self) -> dict[str, Any]:
        """OpenAI's form of a complete choice."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.texts),
            "refusal": None,
        }
        if self.images:
            message["images"] = self.images
        if self.boxes():
            message["boxes"] = self.boxes()
        return {
            "index": self.index,
            "message": message,
            "logprobs": describe_logprobs(self.logprobs),
            "finish_reason": self.end.reason if self.end else "stop",
        }


class ChatHead:
    """What every object of one chat completion begins with.

    Args:
        model: id of the model.
    """

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model

    def completion(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """A whole chat completion."""
        return {
            **self._head("chat.completion"),
            "choices": [choice.to_json() for choice in choices],
            "usage": usage.to_json(),
        }

    def piece(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": describe_logprobs(logprobs),
            "finish_reason": finish_reason,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_piece(self, usage: Usage) -> dict[str, Any]:
        """The last piece of a stream whose usage was asked for."""
        head = self._head("chat.completion.chunk")
        return {**head, "choices": [], "usage": usage.to_json()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


async def stream_pieces(
    head: ChatHead, numbered: AsyncIterator[tuple[int, Event]], *, choices: Sequence[Choice]
) -> AsyncIterator[dict[str, Any]]:
    """The pieces of a stream of one or several choices, in the order they are made."""
    for choice in choices:
        yield head.piece(choice.index, {"role": "assistant", "content": ""})
    async for index, event in numbered:
        choice = choices[index]
        delta = await choice.take(event)
        if delta is not None:
            told = event.logprobs if isinstance(event, TextDelta) else ()
            yield head.piece(index, delta, logprobs=told)
        elif choice.end is not None:
            closing = {"boxes": choice.boxes()} if choice.boxes() else {}
            yield head.piece(index, closing, finish_reason=choice.end.reason)


def describe_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """OpenAI's form of the tokens' probabilities; None where there are none."""
    if not logprobs:
        return None
    told = [
        _describe(token) | {"top_logprobs": [_describe(other) for other in token.top]}
        for token in logprobs
    ]
    return {"content": told, "refusal": None}


def _describe(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.text.encode("utf-8", "replace")),
    }
