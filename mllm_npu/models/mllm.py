"""Put the parts together: multimodal models that read, and that read and draw.

Shape letters: T packed tokens, I tiles, K vision tokens per tile, V vision width, R tiles that are
read, Q tokens per read tile, D language width, N tokens with a target, G pictures that are drawn, P
tokens per drawn picture, M tokens of joined tiles, X tokens that one of those is made of.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mllm_npu.batch import Batch, Losses, LossTerm
from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.drawing import Drawing
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.fit import require_drawing, require_reading, require_weight
from mllm_npu.models.grid_tokens import join_tokens
from mllm_npu.models.interfaces import ImageDecoder, LanguageModel, Projector, VisionEncoder
from mllm_npu.models.losses import FEATURE_LOSSES
from mllm_npu.ops.cross_entropy import cross_entropy


class GeneralizedMultimodalModel(nn.Module):
    """A language model that reads tiles: projected vision features stand in its image slots.

    Args:
        language_model: runs packed embeddings.
        vision_encoder: turns tiles into features.
        projector: turns features into embeddings of the language model.
        patch_positions: add a learnt embedding of where a tile lies in its picture to all its
            tokens.
        bidirectional_images: the tokens of a tile see all of the tile, not only what is before
            them.
        newline: whether there is a learnt embedding that ends the rows of joined tiles.
        language_weight: factor of the language loss.
        pretrained_model_name_path: file or folder that holds its weights, for who builds it; the
            model does not open it.

    Raises:
        ConfigError: widths or token numbers of the parts do not fit.

    Source: LLaVA (Liu et al. 2023); SEED-X (Ge et al. 2024) for tiles of any resolution and their
        positions; LLaVA-NeXT (Liu et al. 2024) for joined tiles.
    """

    def __init__(
        self,
        *,
        language_model: LanguageModel,
        vision_encoder: VisionEncoder,
        projector: Projector,
        patch_positions: bool = False,
        bidirectional_images: bool = False,
        newline: bool = False,
        language_weight: float = 1.0,
        pretrained_model_name_path: str | None = None,
    ) -> None:
        super().__init__()
        self.pretrained_model_name_path = pretrained_model_name_path
        require_reading(language_model, vision_encoder, projector)
        require_weight("language_weight", language_weight)
        self.language_model, self.vision_encoder, self.projector = (
            language_model,
            vision_encoder,
            projector,
        )
        self.language_weight = language_weight
        self.bidirectional_images = bidirectional_images
        self.patch_pos_embed = _position_weights(language_model.width) if patch_positions else None
        self.newline = _random_embedding(language_model.width) if newline else None

    def forward(self, batch: Batch, *, tile_features_IKV: Tensor | None = None) -> Losses:
        """Losses of a pack.

        Args:
            batch: packed sequences.
            tile_features_IKV: features of ``batch.tiles`` where they are known (a frozen encoder,
                cached).
        """
        features_IKV = (
            self.encode_tiles(batch.tiles) if tile_features_IKV is None else tile_features_IKV
        )
        return self._losses(batch, features_IKV, self.hidden(batch, tile_features_IKV=features_IKV))

    def encode_tiles(self, tiles_I3HW: Tensor) -> Tensor:
        """Vision features of tiles, uint8 [I, 3, H, W] -> float [I, K, V]."""
        return self.vision_encoder(tiles_I3HW)

    def read(self, features_RKV: Tensor, positions_R2: Tensor) -> Tensor:
        """Embeddings of tiles, from features [R, K, V] and places (x, y) [R, 2] -> [R, Q, D]."""
        tokens_RQD = self.projector(_as_taken(features_RKV, self.projector))
        if self.patch_pos_embed is None:
            return tokens_RQD
        places_R4 = torch.cat([positions_R2, 1 - positions_R2], 1) / 2
        return tokens_RQD + (places_R4.to(tokens_RQD.dtype) @ self.patch_pos_embed)[:, None]

    def embed_batch(self, batch: Batch, tile_features_IKV: Tensor | None = None) -> Tensor:
        """Embeddings of a pack, tiles in their slots, float [T, D].

        Raises:
            DataError: the pack has another number of slots per tile than the projector gives
                tokens, or joined tiles that the model has no newline for.
        """
        if batch.read_slots.shape[1] != self.projector.num_queries:
            raise DataError(
                f"The batch has {batch.read_slots.shape[1]} slots per read tile, the projector "
                f"gives {self.projector.num_queries} tokens; set the processor's num_read_tokens "
                "to that."
            )
        features_IKV = (
            self.encode_tiles(batch.tiles) if tile_features_IKV is None else tile_features_IKV
        )
        embeds_TD = self.language_model.embed(batch.input_ids)
        tokens_RQD = self.read(
            features_IKV.index_select(0, batch.read_tiles),
            batch.tile_positions.index_select(0, batch.read_tiles),
        )
        return self.place(
            embeds_TD,
            tokens_RQD,
            slots_RQ=batch.read_slots,
            grid_slots_M=batch.grid_slots,
            grid_sources_MX=batch.grid_sources,
            grid_weights_MX=batch.grid_weights,
        )

    def place(
        self,
        embeds_TD: Tensor,
        tokens_RQD: Tensor,
        *,
        slots_RQ: Tensor,
        grid_slots_M: Tensor | None = None,
        grid_sources_MX: Tensor | None = None,
        grid_weights_MX: Tensor | None = None,
    ) -> Tensor:
        """Put the tokens of tiles into their slots, as they are or joined, float [T, D].

        Args:
            embeds_TD: of the texts.
            tokens_RQD: from ``read``.
            slots_RQ: places of tiles that stand by themselves, int64.
            grid_slots_M: places of joined tiles, int64.
            grid_sources_MX: what each of them is made of, see `mllm_npu.batch.Batch`.
            grid_weights_MX: shares of those.

        Raises:
            DataError: there are joined tiles and the model has no newline.
        """
        if grid_slots_M is None or grid_sources_MX is None:
            tokens_MD = tokens_RQD.flatten(0, 1)
            return embeds_TD.index_copy(0, slots_RQ.flatten(), tokens_MD.to(embeds_TD.dtype))
        if self.newline is None:
            raise DataError(
                "The tiles of the batch are joined, and the model has no newline to end rows with; "
                "build it with newline=true, or set processor.any_resolution to AnyResolution."
            )
        tokens_MD = join_tokens(tokens_RQD, self.newline, grid_sources_MX, grid_weights_MX)
        return embeds_TD.index_copy(0, grid_slots_M, tokens_MD.to(embeds_TD.dtype))

    def hidden(self, batch: Batch, *, tile_features_IKV: Tensor | None = None) -> Tensor:
        """Last hidden states of a pack, float [T, D]."""
        return self.language_model(
            self.embed_batch(batch, tile_features_IKV),
            position_ids_T=batch.position_ids,
            sequence_ends=batch.sequence_ends,
            blocks=batch.read_blocks if self.bidirectional_images else (),
        )

    def _losses(self, batch: Batch, features_IKV: Tensor, hidden_TD: Tensor) -> Losses:
        language, per_target = self._language_term(batch, hidden_TD)
        return Losses(terms={"language": language}, per_target=per_target)

    def _language_term(self, batch: Batch, hidden_TD: Tensor) -> tuple[LossTerm, Tensor]:
        total, per_target = cross_entropy(
            hidden_TD.index_select(0, batch.target_positions),
            batch.targets,
            self.language_model.logits,
            vocab_size=self.language_model.vocab_size,
        )
        return LossTerm(
            total=total, count=batch.num_targets, weight=self.language_weight
        ), per_target


GeneraliazedMultimodalModels = GeneralizedMultimodalModel
"""The name under which configs of the original know the class."""


class SEED(GeneralizedMultimodalModel, Drawing):
    """A multimodal model that also draws: states at drawn slots predict vision features.

    Args:
        language_model: runs packed embeddings.
        vision_encoder: turns tiles into features, of read and of drawn pictures.
        projector: turns features into embeddings of the language model.
        output_projector: turns the states at a drawn picture's slots into features.
        image_decoder: draws a picture from such features; trained by its own objective. None while
            only the features are learnt; such a model cannot draw.
        drawn_features: the space of those features (pooled, standardised).
        patch_positions: see `GeneralizedMultimodalModel`.
        bidirectional_images: see `GeneralizedMultimodalModel`.
        newline: see `GeneralizedMultimodalModel`.
        language_weight: factor of the language loss.
        image_weight: factor of the feature loss.
        image_loss: "mse" or "cosine".
        pretrained_model_name_path: see `GeneralizedMultimodalModel`.

    Raises:
        ConfigError: a part is missing, or widths and token numbers of the parts do not fit.

    Source: SEED-X (Ge et al. 2024).
    """

    def __init__(
        self,
        *,
        language_model: LanguageModel,
        vision_encoder: VisionEncoder,
        projector: Projector,
        output_projector: Projector,
        drawn_features: DrawnFeatures,
        image_decoder: ImageDecoder | None = None,
        patch_positions: bool = False,
        bidirectional_images: bool = False,
        newline: bool = False,
        language_weight: float = 1.0,
        image_weight: float = 1.0,
        image_loss: Literal["mse", "cosine"] = "mse",
        pretrained_model_name_path: str | None = None,
    ) -> None:
        super().__init__(
            language_model=language_model,
            vision_encoder=vision_encoder,
            projector=projector,
            patch_positions=patch_positions,
            bidirectional_images=bidirectional_images,
            newline=newline,
            language_weight=language_weight,
            pretrained_model_name_path=pretrained_model_name_path,
        )
        require_weight("image_weight", image_weight)
        if image_loss not in FEATURE_LOSSES:
            raise ConfigError(
                f"SEED was asked for image_loss={image_loss!r}; choose one of "
                f"{', '.join(FEATURE_LOSSES)}."
            )
        require_drawing(
            language_model, vision_encoder, output_projector, image_decoder, drawn_features
        )
        self.output_projector, self.image_decoder = output_projector, image_decoder  # type: ignore[assignment]
        self.drawn_features = drawn_features
        self.image_weight = image_weight
        self.image_loss = image_loss

    def predict_features(self, hidden_GPD: Tensor) -> Tensor:
        """Features that the states at drawn slots stand for, float [G, P, D] -> [G, P, V]."""
        return self.output_projector(_as_taken(hidden_GPD, self.output_projector))

    def drawn_hidden(self, batch: Batch, hidden_TD: Tensor) -> Tensor:
        """States at the slots of the drawn pictures, float [G, P, D].

        Raises:
            DataError: the pack has another number of slots per drawn picture than the model
                predicts features.
        """
        if batch.draw_slots.shape[1] != self.drawn_features.num_tokens:
            raise DataError(
                f"The batch has {batch.draw_slots.shape[1]} slots per drawn picture, the model "
                f"predicts {self.drawn_features.num_tokens} features; set the processor's "
                "num_drawn_tokens to that."
            )
        states = hidden_TD.index_select(0, batch.draw_slots.flatten())
        return states.view(*batch.draw_slots.shape, hidden_TD.shape[1])

    def _losses(self, batch: Batch, features_IKV: Tensor, hidden_TD: Tensor) -> Losses:
        language, per_target = self._language_term(batch, hidden_TD)
        predicted_GPV = self.predict_features(self.drawn_hidden(batch, hidden_TD))
        target_GPV = self.target_features(features_IKV.index_select(0, batch.draw_tiles))
        per_drawn = FEATURE_LOSSES[self.image_loss](predicted_GPV, target_GPV)
        total = (per_drawn * batch.draw_weights).sum()
        image = LossTerm(total=total, count=batch.num_drawn, weight=self.image_weight)
        return Losses(
            terms={"language": language, "image": image},
            per_target=per_target,
            per_drawn=per_drawn.detach(),
        )


def _as_taken(features: Tensor, part: nn.Module) -> Tensor:
    """Features in the type a part computes in, where no autocast sees to that."""
    device, parameter = features.device.type, next(part.parameters(), None)
    is_cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return features if is_cast or parameter is None else features.to(parameter.dtype)


def _random_embedding(width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(width), std=width**-0.5))


def _position_weights(width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(4, width), std=width**-0.5))
