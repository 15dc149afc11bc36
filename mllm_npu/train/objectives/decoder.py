"""Objective of an image decoder: draw what was seen, and what the language model only imagined.

Regressed features are means; a decoder that has only seen true features turns them into blur,
so part of its conditions are the features the frozen model predicts.

Shape letters: I tiles, S pixels, T packed tokens, G drawn pictures, P tokens per drawn picture,
K vision tokens, V vision width, D language width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mllm_npu.batch import Batch, Losses, LossTerm
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.mllm import calibrate, check_cache, frozen_features
from mllm_npu.train.objectives.objective import Objective

if TYPE_CHECKING:
    from mllm_npu.models.drawing import Drawing
    from mllm_npu.models.mllm import SEED


class DecoderObjective(Objective):
    """Trains the image decoder of a model whose other parts are frozen.

    Args:
        model: with an image decoder.
        trainable: patterns over its parameter names.
        predicted_share: probability that a picture is drawn from predicted, not true, features; 0
            for a model without a language model.
        feature_cache: keeps features of tiles; None encodes every time.
        latent_cache: keeps what the decoder's loss needs of pictures (latents); None encodes every
            time.
        calibration_batches: batches for the scale of the features, where no stage has taken it.

    Raises:
        ConfigError: no image decoder, a share outside 0..1 or above what the model can predict, or
            a cache of an encoder that is trained.
    """

    model: Drawing

    def __init__(
        self,
        *,
        model: Drawing,
        trainable: Sequence[str] = ("image_decoder.*",),
        predicted_share: float = 0.5,
        feature_cache: FeatureCache | None = None,
        latent_cache: FeatureCache | None = None,
        calibration_batches: int = 16,
    ) -> None:
        if getattr(model, "image_decoder", None) is None:
            raise ConfigError(
                f"An image decoder was to be trained, but {type(model).__name__} has none. "
                "Use a SEED model with image_decoder set."
            )
        if not 0 <= predicted_share <= 1:
            raise ConfigError(f"predicted_share={predicted_share} was asked for. Use 0 to 1.")
        if predicted_share and not hasattr(model, "language_model"):
            raise ConfigError(
                f"predicted_share={predicted_share} was asked for, but {type(model).__name__} has "
                "no language model to predict features. Set objective.predicted_share=0."
            )
        super().__init__(model=model, trainable=trainable)
        check_cache(model, feature_cache)
        self.predicted_share = predicted_share
        self.feature_cache = feature_cache
        self.latent_cache = latent_cache
        self.calibration_batches = calibration_batches

    def counts(self, batch: Batch) -> dict[str, float]:
        """See Objective."""
        return {"image_decoder": float(batch.num_drawn)}

    def forward(self, batch: Batch) -> Losses:
        """See Objective."""
        on_device = batch.to(self.device)
        pictures_G3SS = batch.pictures
        if pictures_G3SS is None:
            pictures_G3SS = batch.tiles.index_select(0, batch.draw_tiles)
        self._check_pictures(pictures_G3SS, batch)
        losses_G = self.model.image_decoder.loss(
            self._encode(pictures_G3SS),
            self._features(batch, on_device),
            conditions_GCHW=self._conditions(batch, on_device),
            empty_PV=self.model.empty_features(),
        )
        weighted_G = losses_G * on_device.draw_weights
        term = LossTerm(total=weighted_G.sum(), count=batch.num_drawn)
        return Losses(terms={"image_decoder": term}, per_drawn=losses_G.detach())

    def parts_called_at_will(self) -> Sequence[nn.Module]:
        """See Objective."""
        return () if self.feature_cache is None else (self.model.vision_encoder,)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Take mean and spread of the features where no earlier stage has."""
        calibrate(
            self.model,
            islice(batches, self.calibration_batches),
            self.feature_cache,
            self.device,
        )

    def _encode(self, pictures_G3SS: Tensor) -> Tensor:
        """What the loss needs of pictures on the host, from the cache where there is one."""
        encode = self.model.image_decoder.encode_pictures
        if self.latent_cache is not None:
            return self.latent_cache.features(pictures_G3SS, encode, device=self.device)
        with torch.no_grad():
            return encode(to_device(pictures_G3SS, self.device))

    def _conditions(self, batch: Batch, on_device: Batch) -> Tensor | None:
        """The pictures to change, zeros where a drawn picture changes none."""
        if batch.conditions is None or on_device.condition_weights is None:
            return None
        return self._encode(batch.conditions) * on_device.condition_weights[:, None, None, None]

    @torch.no_grad()
    def _features(self, batch: Batch, on_device: Batch) -> Tensor:
        features_IKV = frozen_features(self.model, batch.tiles, self.feature_cache, self.device)
        if features_IKV is None:
            features_IKV = self.model.vision_encoder(on_device.tiles)
        true_GPV = self.model.target_features(features_IKV.index_select(0, on_device.draw_tiles))
        if self.predicted_share == 0:
            return true_GPV
        model = cast("SEED", self.model)
        hidden_TD = model.hidden(on_device, tile_features_IKV=features_IKV)
        predicted_GPV = model.predict_features(model.drawn_hidden(on_device, hidden_TD))
        # Drawn on the host, so that a seed means the same on every device.
        is_predicted = torch.rand(len(batch.draw_tiles), 1, 1) < self.predicted_share
        return torch.where(to_device(is_predicted, true_GPV.device), predicted_GPV, true_GPV)

    def _check_pictures(self, pictures_G3SS: Tensor, batch: Batch) -> None:
        decoder = self.model.image_decoder
        size = decoder.picture_size
        if tuple(pictures_G3SS.shape[-2:]) != (size, size):
            raise ConfigError(
                f"The image decoder draws {size} pixels, the batch has pictures of "
                f"{list(pictures_G3SS.shape[-2:])}. Set the processor's picture_size to {size}."
            )
        if decoder.takes_condition and batch.conditions is None:
            raise ConfigError(
                f"{type(decoder).__name__} changes a picture, the batch has none to change. Set "
                f"processor.picture_size={size} and processor.condition_pictures=true."
            )
