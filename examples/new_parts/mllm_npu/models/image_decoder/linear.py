"""Draw a picture by one linear layer, which gives the mean of all pictures with its features.

Shape letters: G pictures, P features of a picture, V their width, S pixels of an edge.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn

from mllm_npu.models.image_decoder.pixels import to_levels, to_pixels
from mllm_npu.models.interfaces import ImageDecoder


class LinearImageDecoder(ImageDecoder):
    """Pixels are a linear map of the features; a seed changes nothing.

    Args:
        width: V.
        num_tokens: P.
        picture_size: S.
    """

    def __init__(self, *, width: int, num_tokens: int, picture_size: int) -> None:
        super().__init__()
        self.width, self.num_tokens, self.picture_size = width, num_tokens, picture_size
        self.to_pixels = nn.Linear(num_tokens * width, 3 * picture_size**2)

    def encode_pictures(self, pictures_G3SS: Tensor) -> Tensor:
        """Pixels in -1..1, uint8 [G, 3, S, S] -> float [G, 3, S, S]."""
        return to_pixels(pictures_G3SS, self.picture_size)

    def loss(
        self,
        encoded_GCHW: Tensor,
        features_GPV: Tensor,
        *,
        conditions_GCHW: Tensor | None = None,
        empty_PV: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of each picture, float32 [G]."""
        errors = self._draw(features_GPV) - encoded_GCHW
        return errors.float().pow(2).mean((1, 2, 3))

    def decode(
        self,
        features_GPV: Tensor,
        *,
        steps: int,
        guidance: float,
        generator: Generator | Sequence[Generator] | None = None,
        empty_PV: Tensor | None = None,
        conditions_G3SS: Tensor | None = None,
        image_guidance: float = 1.5,
    ) -> Tensor:
        """Draw one picture per row of features, -> uint8 [G, 3, S, S]."""
        return to_levels(self._draw(features_GPV))

    def sharding_units(self) -> Sequence[nn.Module]:
        """The layer."""
        return [self.to_pixels]

    def _draw(self, features_GPV: Tensor) -> Tensor:
        size = self.picture_size
        return self.to_pixels(features_GPV.flatten(1)).view(-1, 3, size, size)
