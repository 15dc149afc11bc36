"""What a request may ask of a reply: length, sampling, pictures; nonsense is refused early."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mllm_npu.errors import RequestError

ImageMode = Literal["auto", "force", "forbid"]
MOST_LOGPROBS = 20
MOST_STOPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How one reply is made.

    Args:
        max_new_tokens: tokens the model may choose, at least 1; a drawn picture counts as one.
        temperature: 0 takes the best token; above 0 samples from softmax(scores / temperature).
        top_p: share of probability that is kept when sampling, in (0, 1].
        top_k: number of tokens that are kept when sampling; 0 keeps all.
        min_p: tokens less likely than this share of the likeliest are dropped when sampling.
        repetition_penalty: scores of tokens that were read or written are divided by it, negative
            ones multiplied; 1 leaves them.
        stop: texts that end a reply; neither they nor what follows is given.
        logprobs: how many of the likeliest tokens are told at each place beside the chosen one;
            None tells nothing.
        seed: of the tokens and of the pictures' noise; None draws a fresh one.
        images: "auto" lets the model decide, "force" starts the reply with a picture, "forbid"
            gives text only.
        image_steps: solver steps of the image decoder.
        guidance: classifier-free guidance scale of the image decoder; 1 switches it off.
        image_guidance: guidance scale of the picture that is changed, where the decoder takes one.

    Raises:
        RequestError: if a value is outside its range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    seed: int | None = 0
    images: ImageMode = "auto"
    image_steps: int = 10
    guidance: float = 2.0
    image_guidance: float = 1.5

    def __post_init__(self) -> None:
        # One text is a list of one; a list that came from a file becomes what cannot change.
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        can_stop = len(stops) <= MOST_STOPS and all(isinstance(s, str) and s for s in stops)
        checks = (
            ("max_new_tokens", self.max_new_tokens >= 1, "a number from 1"),
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0"),
            ("top_p", 0 < self.top_p <= 1, "a share above 0 and up to 1"),
            ("top_k", self.top_k >= 0, "a number from 0 (0 keeps every token)"),
            ("min_p", 0 <= self.min_p <= 1, "a share from 0 (keeps every token) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "a number above 0"),
            ("stop", can_stop, f"up to {MOST_STOPS} texts that are not empty"),
            (
                "logprobs",
                self.logprobs is None or 0 <= self.logprobs <= MOST_LOGPROBS,
                f"a number from 0 to {MOST_LOGPROBS}, or None",
            ),
            ("seed", self.seed is None or self.seed >= 0, "a number from 0, or None"),
            ("images", self.images in get_args(ImageMode), f"one of {list(get_args(ImageMode))}"),
            ("image_steps", self.image_steps >= 1, "a number from 1"),
            (
                "guidance",
                0 <= self.guidance < math.inf,
                "a number from 0 (1 switches guidance off)",
            ),
            ("image_guidance", 0 <= self.image_guidance < math.inf, "a number from 0"),
        )
        for name, fits, wanted in checks:
            if not fits:
                raise RequestError(f"{name}={getattr(self, name)!r} was asked for; give {wanted}.")
        object.__setattr__(self, "stop", stops)
