"""Replies in OpenAI's form, as the API's description tells them; tests hold what is sent to it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class DataUrl(BaseModel):
    """An address that holds the picture itself."""

    url: str


class DrawnPicture(BaseModel):
    """A picture of a reply; it may be sent back with its message.

    Args:
        index: place among the pictures of the reply.
        offset: characters of the reply's text that stand before it.
        width: in pixels.
        height: in pixels.
    """

    type: Literal["image_url"]
    image_url: DataUrl
    index: int
    offset: int
    width: int
    height: int


class NamedBox(BaseModel):
    """A place in the last picture that the reply names, as shares of its width and height."""

    x0: float
    y0: float
    x1: float
    y1: float
    label: str


class Token(BaseModel):
    """A token, the logarithm of its probability, and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(Token):
    """The token that was chosen, and the likeliest at its place."""

    top_logprobs: list[Token]


class Logprobs(BaseModel):
    """Probabilities of the tokens of a text, where they were asked for."""

    content: list[ChosenToken]
    refusal: None


class Usage(BaseModel):
    """Tokens of the question once, and of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(BaseModel):
    """What the model says; ``images`` and ``boxes`` are beyond OpenAI's and there if they hold any.

    Its text is empty where it only draws.
    """

    role: Literal["assistant"]
    content: str
    refusal: None
    images: list[DrawnPicture] = []
    boxes: list[NamedBox] = []


class ReplyChoice(BaseModel):
    """One of ``n`` replies; ``length`` says that a limit has ended it."""

    index: int
    message: ReplyMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ReplyChoice]
    usage: Usage


class Delta(BaseModel):
    """What a piece of a stream adds."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    images: list[DrawnPicture] = []
    boxes: list[NamedBox] = []


class PieceChoice(BaseModel):
    """Which reply a piece belongs to; the last one of a reply says why it has ended."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(BaseModel):
    """A piece of a stream; the last holds no choice but the usage, where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[PieceChoice]
    usage: Usage | None = None


class MadePicture(BaseModel):
    """A picture in the form that was asked for: base64, or an address that holds it."""

    b64_json: str | None = None
    url: str | None = None


class PictureUsage(BaseModel):
    """Tokens of the prompt, and of all pictures."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class MadePictures(BaseModel):
    """Drawn pictures."""

    created: int
    data: list[MadePicture]
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    usage: PictureUsage


class Model(BaseModel):
    """A model; ``version``, ``draws`` and ``max_tokens`` are beyond OpenAI's.

    Args:
        id: what a request names in ``model``.
        version: of its weights.
        draws: whether it makes pictures.
        max_tokens: of question and reply together.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mllm-npu"
    version: str
    draws: bool
    max_tokens: int


class ModelList(BaseModel):
    """All models of an address."""

    object: Literal["list"] = "list"
    data: list[Model]


class Problem(BaseModel):
    """Why a request is refused.

    Args:
        message: what was asked, what is, what to do.
        type: OpenAI's word for the class of the refusal.
        param: the part of the request that is refused.
        code: a word for programs.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """A refusal in OpenAI's form."""

    error: Problem
