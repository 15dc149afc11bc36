"""What happens while a reply is made: TextDelta, ImageMade, Finished; and the Reply they add up to.

Shape letters: P tokens of a drawn picture, V vision width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch import Tensor

from mllm_npu.processing.grounding import Box

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """The next piece of text; never half a character."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMade:
    """A picture is ready.

    Args:
        picture: what the image decoder drew, RGB.
        features: what it was drawn from, float32 [P, V] on the CPU.
    """

    picture: Image.Image
    features: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The reply is complete; the last event of every request.

    Args:
        reason: "stop" when the model ended the reply, "length" when a limit did.
        num_prompt_tokens: tokens of the question, picture slots included.
        num_new_tokens: tokens the model chose, a picture counted as one.
        num_pictures: pictures drawn.
        boxes: places in the picture that the reply names.
    """

    reason: FinishReason
    num_prompt_tokens: int
    num_new_tokens: int
    num_pictures: int
    boxes: tuple[Box, ...] = ()


Event = TextDelta | ImageMade | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply.

    Args:
        text: the text without special tokens.
        pictures: the drawn pictures in order.
        features: of each picture, float32 [P, V].
        finish_reason: why it ended.
        num_prompt_tokens: tokens of the question.
        num_new_tokens: tokens the model chose.
        boxes: places in the picture that the reply names.
    """

    text: str
    pictures: tuple[Image.Image, ...]
    features: tuple[Tensor, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_new_tokens: int
    boxes: tuple[Box, ...] = ()


def collect_reply(events: Iterable[Event]) -> Reply:
    """Add the events of one request up to its reply.

    Raises:
        ValueError: if the events do not end with ``Finished``.
    """
    texts: list[str] = []
    images: list[ImageMade] = []
    for event in events:
        match event:
            case TextDelta(text=text):
                texts.append(text)
            case ImageMade():
                images.append(event)
            case Finished():
                return Reply(
                    text="".join(texts),
                    pictures=tuple(image.picture for image in images),
                    features=tuple(image.features for image in images),
                    finish_reason=event.reason,
                    num_prompt_tokens=event.num_prompt_tokens,
                    num_new_tokens=event.num_new_tokens,
                    boxes=event.boxes,
                )
    raise ValueError("The events of a request must end with Finished; they ended before.")
