"""Refuse a processor whose numbers, tokens and tiles do not fit each other."""

from __future__ import annotations

import math

from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError
from mllm_npu.processing.special_tokens import ImageIds
from mllm_npu.processing.tiling import Tiling


def check_sizes(max_tokens: int, picture_size: int | None, *, condition_pictures: bool) -> None:
    """Refuse numbers below one, and a picture to change without a size.

    Raises:
        ConfigError: with the numbers.
    """
    if max_tokens < 1 or (picture_size is not None and picture_size < 1):
        raise ConfigError(
            f"max_tokens={max_tokens} and picture_size={picture_size} were asked for. Give "
            "numbers from 1 on, or picture_size=null."
        )
    if condition_pictures and picture_size is None:
        raise ConfigError(
            "condition_pictures=true was asked for without a picture_size. Set it to the image "
            "decoder's."
        )


def check_tokens(
    tokenizer: PreTrainedTokenizerFast,
    ids: ImageIds,
    tiling: Tiling,
    num_read_tokens: int,
    num_drawn_tokens: int,
) -> None:
    """Refuse a tokenizer without the tokens that pictures take, or that could end no answer.

    Raises:
        ConfigError: with what is missing.
    """
    most = ids.num_slots
    if most is None:
        if num_drawn_tokens or num_read_tokens < 1:
            raise ConfigError(
                f"image_token was asked for with num_read_tokens={num_read_tokens} and "
                f"num_drawn_tokens={num_drawn_tokens}. A model that draws needs tags and slots: "
                "set image_token=null, or num_drawn_tokens=0 and at least one read token."
            )
    elif not (1 <= num_read_tokens <= most and 0 <= num_drawn_tokens <= most):
        raise ConfigError(
            f"num_read_tokens={num_read_tokens} and num_drawn_tokens={num_drawn_tokens} were "
            f"asked for, the tokenizer has {most} image slots. Give 1 to that many, or "
            "num_drawn_tokens=0 for a model that does not draw."
        )
    if tiling.joins and (most is not None or math.isqrt(num_read_tokens) ** 2 != num_read_tokens):
        raise ConfigError(
            f"{type(tiling).__name__} joins the tokens of tiles to one grid, and was given "
            f"num_read_tokens={num_read_tokens} with {'tags' if most else 'an image_token'}. Give "
            "an image_token, and a square number of tokens."
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError("The tokenizer has no end-of-text token. Set its eos_token.")
