"""Objective of a vision encoder: say what is in a picture, and keep what can be seen.

Shape letters: I tiles, H W pixels, K vision tokens, V vision width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from mllm_npu.batch import Batch, Losses, LossTerm
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError
from mllm_npu.models.fit import require_weight
from mllm_npu.models.interfaces import LanguageModel
from mllm_npu.train.objectives.contrast import Contrast, count_pairs, pair_texts
from mllm_npu.train.objectives.objective import Objective, is_trained
from mllm_npu.train.objectives.reconstruction import (
    Reconstruction,
    count_real_tiles,
    mark_real_tiles,
)

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel


class VisionObjective(Objective):
    """Trains the encoder of a model on texts and on its own pixels.

    Args:
        model: whose encoder is trained; with ``text="caption"`` also what reads it.
        trainable: patterns over the model's parameter names; must cover the encoder.
        text: ``contrast`` pairs pictures with the learnt text of their sequence; ``caption`` has
            the whole model write it.
        text_weight: factor of the contrast; the language loss keeps the model's own.
        text_tower: reads the texts of the contrast; not exported.
        contrast_width: size of the space in which pictures and texts meet.
        reconstruction_weight: factor of the reconstruction; 0 leaves it out.
        reconstruction_patches: patches to paint per tile, a square; None is one per vision token.
        reconstruction_width: hidden width of what paints.

    Raises:
        ConfigError: text tower and kind of text do not go together, the encoder is not trained, or
            a weight is negative.
    """

    model: GeneralizedMultimodalModel | SEED

    def __init__(
        self,
        *,
        model: GeneralizedMultimodalModel | SEED,
        trainable: Sequence[str],
        text: Literal["contrast", "caption"],
        text_weight: float = 1.0,
        text_tower: LanguageModel | None = None,
        contrast_width: int = 96,
        reconstruction_weight: float = 4.0,
        reconstruction_patches: int | None = None,
        reconstruction_width: int = 192,
    ) -> None:
        super().__init__(model=model, trainable=trainable)
        if not is_trained(model.vision_encoder):
            raise ConfigError(
                f"A vision encoder was to be trained, and trainable={list(trainable)} leaves it "
                "frozen. Add 'vision_encoder.*'."
            )
        require_weight("text_weight", text_weight)
        require_weight("reconstruction_weight", reconstruction_weight)
        if text not in ("contrast", "caption") or (text == "contrast") != (text_tower is not None):
            raise ConfigError(
                f"text={text!r} was asked for {'with' if text_tower else 'without'} a text_tower. "
                "Use text=contrast with a text_tower, or text=caption without one."
            )
        encoder = model.vision_encoder
        self.text_weight = text_weight
        self.reconstruction_weight = reconstruction_weight
        self.contrast: Contrast | None = None
        self.reconstruction: Reconstruction | None = None
        if text_tower is not None:
            num_ids = model.language_model.vocab_size
            if text_tower.vocab_size < num_ids:
                raise ConfigError(
                    f"The text_tower has {text_tower.vocab_size} rows, the language model "
                    f"{num_ids}. Give both the same vocab_size."
                )
            self.contrast = Contrast(
                text_tower=text_tower, vision_width=encoder.width, width=contrast_width
            )
        if reconstruction_weight:
            self.reconstruction = Reconstruction(
                width=encoder.width,
                num_tokens=encoder.num_tokens,
                tile_size=encoder.tile_size,
                num_patches=reconstruction_patches,
                hidden_width=reconstruction_width,
            )

    def counts(self, batch: Batch) -> dict[str, float]:
        """See Objective."""
        counts = {}
        if self.contrast is not None:
            counts["contrast"] = float(count_pairs(batch))
        else:
            counts["language"] = float(batch.num_targets)
        if self.reconstruction is not None:
            counts["reconstruction"] = float(count_real_tiles(batch))
        return counts

    def forward(self, batch: Batch) -> Losses:
        """See Objective."""
        on_device = batch.to(self.device)
        features_IKV = self.model.vision_encoder(on_device.tiles)
        terms: dict[str, LossTerm] = {}
        per_target = None
        if self.contrast is not None:
            pairs = pair_texts(batch)
            total = self.contrast(features_IKV, pairs)
            terms["contrast"] = LossTerm(total=total, count=pairs.count, weight=self.text_weight)
        else:
            losses = self.model(on_device, tile_features_IKV=features_IKV)
            terms["language"] = losses.terms["language"]
            per_target = losses.per_target
        if self.reconstruction is not None:
            terms["reconstruction"] = self._reconstruct(self.reconstruction, features_IKV, batch)
        return Losses(terms=terms, per_target=per_target)

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Nothing to prepare."""

    def _reconstruct(self, head: Reconstruction, features_IKV: Tensor, batch: Batch) -> LossTerm:
        is_real_I = mark_real_tiles(batch)
        tiles_I3HW = to_device(batch.tiles, features_IKV.device)
        errors_I = head(features_IKV, tiles_I3HW) * to_device(is_real_I, features_IKV.device)
        return LossTerm(
            total=errors_I.sum(), count=count_real_tiles(batch), weight=self.reconstruction_weight
        )
