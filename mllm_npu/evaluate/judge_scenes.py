"""Judge drawn scenes by comparing each quarter with rendered templates of every coloured shape.

Shape letters: P quarters, C templates, F values of a quarter (pixels times channels), S pixels of
an edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.data.worlds.scene_pictures import (
    BACKGROUND,
    COLORS,
    POSITIONS,
    SHAPES,
    Jitter,
    Scene,
    Thing,
    render,
)
from mllm_npu.processing.image_transform import resize, to_tensor

Seen = tuple[str, str] | None
"""Colour and shape, or None for an empty quarter."""

UNCLEAR = ("unclear", "thing")
"""What is seen in a quarter that looks like no template."""

_LARGEST_SHARE = 0.5
"""Difference from the best template over the template's own difference from the background, above
which a quarter shows nothing known: rendered shapes give up to 0.17, with strong noise 0.36, shapes
of which one half is missing 0.57 and more."""

_LARGEST_SPECK = 15.0
"""Root mean square of pixels (0..255) by which an empty quarter may differ from background."""

_SHIFTS = (-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03)
_RADII = (0.15, 0.16, 0.17, 0.18, 0.19)


class SceneJudge:
    """Says what a picture shows in each of its quarters.

    Args:
        picture_size: edge in pixels at which pictures are compared.
    """

    def __init__(self, *, picture_size: int) -> None:
        self.picture_size = picture_size
        half = picture_size // 2
        self._seen: list[Seen] = [None]
        empty = Image.new("RGB", (half, half), BACKGROUND)
        templates = [to_tensor(empty).float().flatten()]
        jitters = [Jitter(*values) for values in product(_SHIFTS, _SHIFTS, _RADII)]
        for color, shape, jitter in product(COLORS, SHAPES, jitters):
            thing = Thing(color, shape, POSITIONS[0], 0)
            picture = render((thing,), [jitter], size=picture_size).crop((0, 0, half, half))
            templates.append(to_tensor(picture).float().flatten())
            self._seen.append((color, shape))
        self._templates_CF = torch.stack(templates)
        contrasts_C = (self._templates_CF - self._templates_CF[0]).norm(dim=1)
        self._limits_C = contrasts_C * _LARGEST_SHARE
        self._limits_C[0] = _LARGEST_SPECK * self._templates_CF.shape[1] ** 0.5

    def look(self, picture: Image.Image) -> dict[str, Seen]:
        """What each quarter shows, by position."""
        pixels_3SS = resize(to_tensor(picture), self.picture_size).float()
        half = self.picture_size // 2
        corners = [(place // 2 * half, place % 2 * half) for place in range(len(POSITIONS))]
        quarters = [pixels_3SS[:, y : y + half, x : x + half].flatten() for y, x in corners]
        return dict(zip(POSITIONS, self._match(torch.stack(quarters)), strict=True))

    def count_right(self, picture: Image.Image, scene: Scene) -> int:
        """Quarters that are as the scene says, 0..4; an empty one must be empty."""
        wanted = quarters_of(scene)
        return sum(wanted[position] == seen for position, seen in self.look(picture).items())

    def is_right(self, picture: Image.Image, scene: Scene) -> bool:
        """Whether the whole picture is as the scene says."""
        return self.count_right(picture, scene) == len(POSITIONS)

    def _match(self, quarters_PF: Tensor) -> list[Seen]:
        least_P, best_P = torch.cdist(quarters_PF, self._templates_CF).min(dim=1)
        limits_P = self._limits_C[best_P]
        return [
            self._seen[best] if is_near else UNCLEAR
            for best, is_near in zip(best_P.tolist(), (least_P <= limits_P).tolist(), strict=True)
        ]


def quarters_of(scene: Scene) -> Mapping[str, Seen]:
    """What each quarter of a scene should show."""
    shown: dict[str, Seen] = dict.fromkeys(POSITIONS)
    shown.update({thing.position: (thing.color, thing.shape) for thing in scene})
    return shown


def describe_quarters(quarters: Mapping[str, Seen]) -> str:
    """The quarters in words, empty ones left out."""
    found = [
        f"{seen[0]} {seen[1]} at the {position}"
        for position, seen in quarters.items()
        if seen is not None
    ]
    return ", ".join(found) or "nothing"
