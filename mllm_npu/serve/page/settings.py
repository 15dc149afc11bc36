"""How a reply is to be made, as a person sets it; what is left empty stays as the model has it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mllm_npu.errors import MllmNpuError

ImageMode = Literal["auto", "force", "forbid"]
LARGEST_SEED = 2**31 - 1
MOST_PICTURES = 8
"""That one request draws, as workers limit it."""


class SettingsError(MllmNpuError):
    """A field whose text is no number in its range.

    Args:
        name: of the field.
        low: smallest number it takes.
        high: largest number it takes; None where there is none.
        whole: whether it takes whole numbers only.
    """

    def __init__(self, name: str, *, low: float, high: float | None, whole: bool) -> None:
        super().__init__(name)
        self.name, self.low, self.high, self.whole = name, low, high, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of a reply in the chat; None is as the model has it.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: share of probability that is kept when sampling.
        max_tokens: longest reply.
        seed: makes a reply come again.
        images: whether pictures are drawn.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    images: ImageMode = "auto"

    def to_request(self) -> dict[str, Any]:
        """The parameters of the API that say so."""
        values = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        return {name: value for name, value in values.items() if value is not None} | {
            "images": self.images
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSettings:
    """Of drawn pictures; None is as the model has it.

    Args:
        seed: of the first one; those after it take the next ones.
        number: of pictures.
        steps: of the image decoder.
        guidance: how closely the words are followed.
        image_guidance: how closely the given picture is followed.
    """

    seed: int
    number: int = 1
    steps: int | None = None
    guidance: float | None = None
    image_guidance: float | None = None

    def to_request(self) -> dict[str, Any]:
        """The parameters of the API that say so."""
        values = {
            "image_steps": self.steps,
            "guidance": self.guidance,
            "image_guidance": self.image_guidance,
        }
        return {name: value for name, value in values.items() if value is not None} | {
            "seed": self.seed,
            "n": self.number,
            "images": "force",
            "max_tokens": 1,
        }


def read_settings(
    temperature: str, top_p: str, max_tokens: str, seed: str, images: str
) -> Settings:
    """Settings from the fields of the page.

    Raises:
        SettingsError: a field holds something else.
    """
    mode: ImageMode = next((mode for mode in get_args(ImageMode) if mode == images), "auto")
    return Settings(
        temperature=read_number("temperature", temperature),
        top_p=read_number("top_p", top_p, high=1.0),
        max_tokens=read_whole("max_tokens", max_tokens, low=1),
        seed=read_whole("seed", seed),
        images=mode,
    )


def read_drawing(
    seed: str, number: float, steps: str, guidance: str, image_guidance: str = ""
) -> DrawingSettings:
    """Settings of drawing from the fields of the page; without a seed one is thrown.

    Raises:
        SettingsError: a field holds something else.
    """
    given = read_whole("seed", seed)
    return DrawingSettings(
        seed=random.SystemRandom().randrange(LARGEST_SEED) if given is None else given,
        number=max(1, min(MOST_PICTURES, int(number))),
        steps=read_whole("steps", steps, low=1),
        guidance=read_number("guidance", guidance),
        image_guidance=read_number("image_guidance", image_guidance),
    )


def read_number(
    name: str, text: str, *, low: float = 0.0, high: float | None = None
) -> float | None:
    """A number from a field; None where it is empty.

    Raises:
        SettingsError: it is none, or out of range.
    """
    if not text.strip():
        return None
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not low <= number < math.inf or (high is not None and number > high):
        raise SettingsError(name, low=low, high=high, whole=False)
    return number


def read_whole(name: str, text: str, *, low: int = 0, high: int = LARGEST_SEED) -> int | None:
    """A whole number from a field; None where it is empty.

    Raises:
        SettingsError: it is none, or out of range.
    """
    if not text.strip():
        return None
    digits = text.strip()
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else -1
    if not low <= number <= high:
        raise SettingsError(name, low=low, high=high, whole=True)
    return number
