"""Draw pictures from features, and send pictures through encoder and decoder.

Shape letters: G pictures, H W pixels of a tile, P tokens per drawn picture, V vision width, S
pixels of a drawn picture's edge.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Generator, Tensor

from mllm_npu.device.transfer import pick_rows, to_device
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.image_transform import stretch, to_picture

if TYPE_CHECKING:
    from mllm_npu.models.drawing import Drawing

_Alike = tuple[int, float, float, bool]
"""Steps, guidance, image guidance, and whether there is a picture to change."""


def draw_pictures(
    model: Drawing,
    features_GPV: Tensor,
    *,
    options: Sequence[GenerationOptions],
    generators: Sequence[Generator],
    conditions: Sequence[Image.Image | None],
) -> list[Image.Image]:
    """Draw one picture per row of features; those that are asked for alike are one batch.

    Args:
        model: draws.
        features_GPV: what to draw.
        options: of each picture.
        generators: noise of each picture.
        conditions: the picture each one changes, or None.
    """
    decoder = model.image_decoder
    alike: dict[_Alike, list[int]] = defaultdict(list)
    for place, (wish, condition) in enumerate(zip(options, conditions, strict=True)):
        changes = condition is not None and decoder.takes_condition
        alike[wish.image_steps, wish.guidance, wish.image_guidance, changes].append(place)
    drawn: dict[int, Image.Image] = {}
    for (steps, guidance, image_guidance, changes), places in alike.items():
        given = [conditions[place] for place in places]
        sources = [
            stretch(picture, decoder.picture_size) for picture in given if picture is not None
        ]
        pictures_G3SS = model.draw(
            pick_rows(features_GPV, places),
            steps=steps,
            guidance=guidance,
            generator=[generators[place] for place in places],
            conditions_G3SS=to_device(torch.stack(sources), features_GPV.device)
            if changes
            else None,
            image_guidance=image_guidance,
        )
        drawn.update(zip(places, map(to_picture, pictures_G3SS.cpu()), strict=True))
    return [drawn[place] for place in range(len(options))]


@torch.inference_mode()
def redraw(
    model: Drawing,
    pictures: Sequence[Image.Image],
    options: GenerationOptions,
    *,
    device: torch.device,
    conditions: Sequence[Image.Image | None] | None = None,
    max_batch: int = 64,
    exact: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Image.Image]:
    """Send pictures through the vision encoder and the image decoder, past the language model.

    Args:
        model: in evaluation mode.
        pictures: of any size.
        options: image_steps, guidance, image_guidance and seed; every picture starts from the same
            noise.
        device: where the model is.
        conditions: a picture to change for each, where the decoder takes one.
        max_batch: pictures at once.
        exact: resize by Pillow as in training, see ``stretch``.
        progress: called with the pictures done and their number.
    """
    size, seed = model.vision_encoder.tile_size, fresh_seed(options.seed)
    given = [None] * len(pictures) if conditions is None else conditions
    redrawn: list[Image.Image] = []
    for start in range(0, len(pictures), max_batch):
        chunk = pictures[start : start + max_batch]
        tiles_G3HW = torch.stack([stretch(picture, size, exact=exact) for picture in chunk])
        redrawn += draw_pictures(
            model,
            model.target_features(model.encode_tiles(to_device(tiles_G3HW, device))),
            options=[options] * len(chunk),
            generators=[Generator().manual_seed(seed) for _ in chunk],
            conditions=given[start : start + max_batch],
        )
        progress(len(redrawn), len(pictures))
    return redrawn


def fresh_seed(seed: int | None) -> int:
    """The seed itself, or a new one where none was given."""
    return random.SystemRandom().randrange(2**31) if seed is None else seed
