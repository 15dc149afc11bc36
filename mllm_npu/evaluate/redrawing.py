"""Answer examples whose picture is sent through encoder and decoder, past the language model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.task import Example
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage
from mllm_npu.processing.raster import Picture, to_pillow


def redraw_examples(engine: Engine, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
    """Redraw the picture of each example; those with equal options go together.

    Args:
        engine: of a model that draws.
        examples: with ``redraws``.

    Yields:
        Number of an example and its reply, batch by batch.

    Raises:
        RequestError: the model cannot draw.
        DataError: an example has no picture, or one that cannot be read.
    """
    alike: dict[GenerationOptions, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        alike[example.options].append(number)
    for options, numbers in alike.items():
        for start in range(0, len(numbers), engine.max_batch):
            chunk = numbers[start : start + engine.max_batch]
            shown = [to_pillow(picture_of(examples[number])) for number in chunk]
            drawn = engine.redraw(shown, options)
            yield from zip(chunk, map(_reply, drawn), strict=True)


def picture_of(example: Example) -> Picture:
    """The first picture that an example shows.

    Raises:
        DataError: it shows none.
    """
    for turn in example.conversation.turns:
        for part in turn.parts:
            if isinstance(part, ReadImage):
                return part.picture
    raise DataError(f"The picture of {example.name} was to be redrawn, it shows none. Give one.")


def _reply(picture: Image.Image) -> Reply:
    return Reply(
        text="",
        pictures=(picture,),
        features=(torch.empty(0),),
        finish_reason="stop",
        num_prompt_tokens=0,
        num_new_tokens=0,
    )
