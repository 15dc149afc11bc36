"""What every model that draws can do: say what features a picture has, and draw from features.

Shape letters: I tiles, H W pixels, G pictures, K vision tokens, P tokens per drawn picture, V
vision width, S pixels of a drawn picture's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Generator, Tensor, nn

from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.fit import require_decoder
from mllm_npu.models.interfaces import ImageDecoder, VisionEncoder


class Drawing(nn.Module):
    """The parts between a picture, its features and a drawn picture; a mixin of the models.

    Attributes:
        vision_encoder: gives the features of a picture.
        drawn_features: the space they are drawn from.
        image_decoder: draws.
    """

    vision_encoder: VisionEncoder
    drawn_features: DrawnFeatures
    image_decoder: ImageDecoder
    _empty_PV: Tensor | None = None
    _empty_of: tuple[torch.device, int] | None = None

    def encode_tiles(self, tiles_I3HW: Tensor) -> Tensor:
        """Vision features of tiles, uint8 [I, 3, H, W] -> float [I, K, V]."""
        return self.vision_encoder(tiles_I3HW)

    def target_features(self, features_GKV: Tensor) -> Tensor:
        """What a drawn picture's features should be, [G, K, V] -> [G, P, V]; no gradient."""
        return self.drawn_features(features_GKV.detach())

    @torch.no_grad()
    def empty_features(self) -> Tensor | None:
        """Features [P, V] of the empty tile; None where the decoder has learnt its own.

        They are kept until the encoder's weights change or training begins or ends.
        """
        if not self.image_decoder.needs_empty:
            return None
        weight = next(self.vision_encoder.parameters())
        # Not where they lie: on ranks that share a model, all must come to the same answer.
        weights_now = (weight.device, weight._version)
        if self._empty_PV is None or self._empty_of != weights_now:
            tile_13HW = self.vision_encoder.empty_tile()[None].to(weight.device)
            self._empty_PV = self.target_features(self.encode_tiles(tile_13HW))[0].clone()
            self._empty_of = weights_now
        return self._empty_PV

    def draw(
        self,
        features_GPV: Tensor,
        *,
        steps: int,
        guidance: float,
        generator: Generator | Sequence[Generator] | None,
        conditions_G3SS: Tensor | None = None,
        image_guidance: float = 1.5,
    ) -> Tensor:
        """Draw one picture per row of features, -> uint8 [G, 3, S, S]; see `ImageDecoder.decode`.

        Pictures to change are left out where the decoder takes none.
        """
        takes = self.image_decoder.takes_condition
        return self.image_decoder.decode(
            features_GPV,
            steps=steps,
            guidance=guidance,
            generator=generator,
            empty_PV=self.empty_features(),
            conditions_G3SS=conditions_G3SS if takes else None,
            image_guidance=image_guidance,
        )

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what was kept of the encoder is dropped."""
        self._empty_PV = None
        return super().train(mode)


class Detokenizer(Drawing):
    """A vision encoder and an image decoder without a language model, to train the latter alone.

    Its parameters have the names they have in `mllm_npu.models.mllm.SEED`, which can start from
    them.

    Args:
        vision_encoder: turns tiles into features; frozen when the decoder is trained.
        image_decoder: draws a picture from such features.
        drawn_features: the space of those features.
        pretrained_model_name_path: file or folder that holds its weights, for who builds it.

    Raises:
        ConfigError: widths and token numbers of the parts do not fit.

    Source: the de-tokenizer of SEED-X (Ge et al. 2024).
    """

    def __init__(
        self,
        *,
        vision_encoder: VisionEncoder,
        image_decoder: ImageDecoder,
        drawn_features: DrawnFeatures,
        pretrained_model_name_path: str | None = None,
    ) -> None:
        super().__init__()
        self.pretrained_model_name_path = pretrained_model_name_path
        require_decoder(vision_encoder, image_decoder, drawn_features)
        self.vision_encoder, self.image_decoder = vision_encoder, image_decoder
        self.drawn_features = drawn_features
