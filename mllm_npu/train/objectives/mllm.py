"""Objective of a multimodal model: next tokens, and features of the pictures to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mllm_npu.batch import Batch, Losses
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.objective import Objective, is_trained

if TYPE_CHECKING:
    from mllm_npu.models.drawing import Drawing
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel


class MultimodalObjective(Objective):
    """Trains a whole model on its own losses.

    Args:
        model: what is trained.
        trainable: patterns over its parameter names.
        feature_cache: keeps features of tiles where the encoder is frozen; None encodes every time.
        calibration_batches: batches that give the scale of the features to draw, before step 1.

    Raises:
        ConfigError: a feature cache with an encoder that is trained.
    """

    model: GeneralizedMultimodalModel | SEED

    def __init__(
        self,
        *,
        model: GeneralizedMultimodalModel | SEED,
        trainable: Sequence[str],
        feature_cache: FeatureCache | None = None,
        calibration_batches: int = 16,
    ) -> None:
        super().__init__(model=model, trainable=trainable)
        check_cache(model, feature_cache)
        self.feature_cache = feature_cache
        self.calibration_batches = calibration_batches
        self.draws = getattr(model, "drawn_features", None) is not None

    def counts(self, batch: Batch) -> dict[str, float]:
        """See Objective."""
        counts = {"language": float(batch.num_targets)}
        if self.draws:
            counts["image"] = float(batch.num_drawn)
        return counts

    def forward(self, batch: Batch) -> Losses:
        """See Objective."""
        features_IKV = frozen_features(self.model, batch.tiles, self.feature_cache, self.device)
        return self.model(batch.to(self.device), tile_features_IKV=features_IKV)

    def parts_called_at_will(self) -> Sequence[nn.Module]:
        """See Objective."""
        return () if self.feature_cache is None else (self.model.vision_encoder,)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Take mean and spread of the features to draw, where the model standardises them."""
        calibrate(
            self.model,
            islice(batches, self.calibration_batches),
            self.feature_cache,
            self.device,
        )


def check_cache(
    model: GeneralizedMultimodalModel | Drawing, feature_cache: FeatureCache | None
) -> None:
    """Refuse to keep features that change.

    Raises:
        ConfigError: a feature cache with an encoder that is trained.
    """
    if feature_cache is not None and is_trained(model.vision_encoder):
        raise ConfigError(
            "A feature cache was asked for, but the vision encoder is trained, so its features "
            "change. Set feature_cache=null, or take vision_encoder out of trainable."
        )


def frozen_features(
    model: GeneralizedMultimodalModel | Drawing,
    tiles_I3HW: Tensor,
    feature_cache: FeatureCache | None,
    device: torch.device,
) -> Tensor | None:
    """Features of tiles on the host, None where the encoder is trained and needs a gradient.

    Args:
        model: whose encoder.
        tiles_I3HW: uint8.
        feature_cache: where to look first.
        device: where the encoder computes.
    """
    if feature_cache is not None:
        return feature_cache.features(tiles_I3HW, model.vision_encoder, device=device)
    if is_trained(model.vision_encoder):
        return None
    with torch.no_grad():
        return model.vision_encoder(to_device(tiles_I3HW, device))


@torch.no_grad()
def calibrate(
    model: GeneralizedMultimodalModel | Drawing,
    batches: Iterator[Batch],
    feature_cache: FeatureCache | None,
    device: torch.device,
) -> None:
    """Take mean and spread of the features to draw, where the model wants them and has none.

    Args:
        model: any; one without ``drawn_features`` is left alone.
        batches: on the host; drawn pictures count, all tiles where none is drawn.
        feature_cache: keeps what is encoded here for training.
        device: where the encoder computes.
    """
    drawn_features = getattr(model, "drawn_features", None)
    if drawn_features is None or not drawn_features.normalize or drawn_features.calibrated:
        return
    drawn: list[Tensor] = []
    others: list[Tensor] = []
    for batch in batches:
        features_IKV = frozen_features(model, batch.tiles, feature_cache, device)
        if features_IKV is None:
            features_IKV = model.vision_encoder(to_device(batch.tiles, device))
        real_G = batch.draw_tiles[batch.draw_weights > 0]
        drawn.append(features_IKV[to_device(real_G, device)])
        others.append(features_IKV)
    has_drawn = any(len(features) for features in drawn)
    drawn_features.calibrate(torch.cat(drawn if has_drawn else others))
