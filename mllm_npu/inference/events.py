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
class TokenLogprob:
    """How likely a token was, among all that might have been chosen at its place.

    Args:
        token_id: of the token.
        text: of the token by itself; half a character is a replacement character.
        logprob: natural logarithm of its probability, before temperature and what else samples.
        top: the likeliest tokens of the place, best first, as many as were asked for.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """The next piece of text; never half a character.

    Args:
        text: may be empty where only probabilities are left to tell.
        logprobs: of the tokens that begin in it, where they were asked for.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


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
class Likelihood:
    """How likely a text is as the reply to a question.

    Args:
        text: that was given.
        logprob: natural logarithm of its probability, the sum over its tokens.
        num_tokens: of the text.
        is_greedy: whether each of its tokens was the likeliest at its place.
    """

    text: str
    logprob: float
    num_tokens: int
    is_greedy: bool


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
        logprobs: of the tokens of the text, where they were asked for.
        choices: how likely each text was that the model was to choose from, in their order.
    """

    text: str
    pictures: tuple[Image.Image, ...]
    features: tuple[Tensor, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_new_tokens: int
    boxes: tuple[Box, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    choices: tuple[Likelihood, ...] = ()


def collect_reply(events: Iterable[Event]) -> Reply:
    """Add the events of one request up to its reply.

    Raises:
        ValueError: if the events do not end with ``Finished``.
    """
    texts: list[str] = []
    images: list[ImageMade] = []
    logprobs: list[TokenLogprob] = []
    for event in events:
        match event:
            case TextDelta(text=text):
                texts.append(text)
                logprobs.extend(event.logprobs)
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
                    logprobs=tuple(logprobs),
                )
    raise ValueError("The events of a request must end with Finished; they ended before.")
