"""Requests in OpenAI's form, as pydantic checks them; what is not known is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from mllm_npu.inference.options import MOST_LOGPROBS, MOST_STOPS, ImageMode
from mllm_npu.serve.pictures_out import PictureFormat

MAX_SEED = 2**62


def check_whole(text: str) -> str:
    """Refuse half a character, which JSON can hold and no tokenizer takes.

    Raises:
        ValueError: there is one.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("the text holds half a character (a lone surrogate)")
    return text


Words = Annotated[str, AfterValidator(check_whole)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Share = Annotated[Number, Field(gt=0, le=1)]


class Strict(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid")


class ImageUrl(Strict):
    """Where a picture is: a data URL, or an https address of an allowed host."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(Strict):
    """A piece of text."""

    type: Literal["text"]
    text: Words


class ImagePart(BaseModel):
    """A picture; what a reply says about a picture beside it may come back and is passed over."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["image_url"] = "image_url"
    image_url: ImageUrl

    @field_validator("image_url", mode="before")
    @classmethod
    def _take_address(cls, value: Any) -> Any:
        """An address by itself stands for its object."""
        return {"url": value} if isinstance(value, str) else value


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = Words | Annotated[list[Part], Field(max_length=1024)]


class AskingMessage(Strict):
    """What a person says, or the system prompt."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: str | None = None


class AssistantMessage(BaseModel):
    """An earlier reply, as it was given: its text, its drawn pictures in ``images``."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["assistant"]
    content: Content | None = None
    images: Annotated[list[ImagePart], Field(max_length=256)] | None = None


ChatMessage = Annotated[AskingMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """What a stream holds beside the reply."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextFormat(Strict):
    """The only form of a reply there is."""

    type: Literal["text"]


class DrawingOptions(Strict):
    """How pictures are drawn; by OpenAI's client in ``extra_body``."""

    image_steps: Annotated[int, Field(ge=1)] | None = None
    guidance: Annotated[Number, Field(ge=0, le=1000)] | None = None
    image_guidance: Annotated[Number, Field(ge=0, le=1000)] | None = None
    seed: Seed | None = None


class ChatRequest(DrawingOptions):
    """A request for a chat completion.

    ``images``, ``image_steps``, ``guidance``, ``image_guidance``, ``top_k``, ``min_p`` and
    ``repetition_penalty`` are beyond OpenAI's.
    What changes nothing here (``user``, ``metadata``, ...) is taken; what would, and is not there
    (tools, penalties, other forms of reply), is refused.
    """

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    n: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: (
        Annotated[Words, Field(min_length=1)]
        | Annotated[list[Annotated[Words, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    images: ImageMode | None = None

    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text", "image"]] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None
    user: str | None = None

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _take_zero(cls, value: Any) -> Any:
        """Zero may be written 0.0."""
        return 0 if isinstance(value, float) and value == 0 else value

    @model_validator(mode="after")
    def _check_together(self) -> ChatRequest:
        """What only makes sense together."""
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options go with stream=true only")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs go with logprobs=true only")
        return self

    def stops(self) -> tuple[str, ...]:
        """The strings that end the reply."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class PictureRequest(DrawingOptions):
    """What requests for pictures share.

    ``quality``, ``style``, ``background``, ``moderation``, ``user`` are taken and change nothing.
    """

    prompt: Annotated[Words, Field(min_length=1)]
    model: Name | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$")] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: PictureFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    quality: Annotated[str, Field(max_length=32)] | None = None
    style: Annotated[str, Field(max_length=32)] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Annotated[str, Field(max_length=32)] | None = None
    user: str | None = None
    stream: Literal[False] | None = None
    partial_images: Literal[0] | None = None

    def edges(self) -> tuple[int, int] | None:
        """Width and height that are asked for; None for the model's own."""
        if self.size in (None, "auto"):
            return None
        width, _, height = str(self.size).partition("x")
        return int(width), int(height)
