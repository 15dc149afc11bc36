"""Requests and replies in the form of TencentARC/mllm-npu, checked and described by pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mllm_npu.serve.openai_models import Number, Seed, Share, Words
from mllm_npu.serve.openai_replies import Problem
from mllm_npu.serve.protocol import Count, Name


class OriginalRequest(BaseModel):
    """A question as the original's clients put it; they send more, which changes nothing.

    With ``image_gen`` a picture is drawn, else the reply is text. ``image`` is base64.
    """

    model_config = ConfigDict(extra="ignore")

    input_text: Words
    image: str | None = ""
    image_gen: bool = False
    model: Annotated[str, Field(max_length=256)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    seed: Seed | None = None


class OriginalChunk(BaseModel):
    """One chunk of a reply: the text so far, a picture as base64, or a refusal.

    Args:
        text: so far; of a refusal its message.
        image: there where one is drawn.
        error_code: 0, or why nothing more comes: 1 of a worker, 2 no worker, 3 a worker failed.
        error: of a refusal.
    """

    text: str
    error_code: int
    image: str = ""
    error: Problem | None = None


class OriginalStatus(BaseModel):
    """What a worker answers with, and how busy it is."""

    model_names: Annotated[list[Name], Field(max_length=64)]
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    queue_length: Count = 0
