"""One training step on captions: our packed model, and stock Hugging Face on padded rows.

Shape letters: S samples, L tokens of a padded row, R tiles that are read, Q tokens per read tile, D
width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from caption_shards import TILE, TOKENS_PER_PICTURE
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from mllm_npu.batch import IGNORED_LABEL, Batch
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.train.optimizer import AdamW

PADDED_LENGTH = 600
"""Tokens the original pads every sample to."""
SAMPLES_PER_ROW_BATCH = 4
"""Samples stock Hugging Face takes at once; of more it is slower per sample, not faster."""
WIDTH, LAYERS, HEADS, FEED_FORWARD = 256, 4, 4, 688
VISION_WIDTH, VISION_LAYERS, VISION_HEADS, PATCH = 192, 4, 3, 14
LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a side computes, and in which dtype matrices are multiplied.

    Args:
        device: of the model.
        compute_dtype: float32 multiplies as the weights are.
        attention: what stock Hugging Face attends with.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compute_dtype: torch.dtype = torch.float32
    attention: str = "sdpa"

    def autocast(self) -> torch.autocast:
        """Matrices are multiplied in the compute dtype inside."""
        is_mixed = self.compute_dtype is not torch.float32
        return torch.autocast(self.device.type, self.compute_dtype, enabled=is_mixed)


HERE = Place()
"""One core of this machine."""


def build_model(vocab_size: int) -> GeneralizedMultimodalModel:
    """The model the original was measured with, as near as its description goes."""
    torch.manual_seed(0)
    language_model = HuggingFaceLanguageModel(
        config={
            "model_type": "llama",
            "hidden_size": WIDTH,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "vocab_size": vocab_size,
            "max_position_embeddings": 4096,
        }
    )
    vision_encoder = HuggingFaceVisionEncoder(
        config={
            "model_type": "siglip_vision_model",
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 4 * VISION_WIDTH,
            "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": VISION_HEADS,
            "image_size": TILE,
            "patch_size": PATCH,
        }
    )
    projector = AttentionResampler(
        input_dim=VISION_WIDTH, output_dim=WIDTH, num_queries=TOKENS_PER_PICTURE, num_heads=HEADS
    )
    return GeneralizedMultimodalModel(
        language_model=language_model,
        vision_encoder=vision_encoder,
        projector=projector,
        patch_positions=True,
    )


def with_read_tiles_only(batch: Batch) -> Batch:
    """The same batch without tiles that no loss of a model that only reads depends on."""
    num_read = len(batch.read_tiles)
    return dataclasses.replace(
        batch,
        tiles=batch.tiles.index_select(0, batch.read_tiles),
        tile_positions=batch.tile_positions.index_select(0, batch.read_tiles),
        read_tiles=torch.arange(num_read),
        draw_tiles=batch.draw_tiles[:0],
        draw_slots=batch.draw_slots[:0],
        draw_weights=batch.draw_weights[:0],
        draw_sequences=batch.draw_sequences[:0],
        num_drawn=0,
    )


class PackedSide:
    """Our model on a pack as it is.

    Args:
        model: changed by every step.
        trains_encoder: whether the vision encoder gets gradients.
        place: where it computes.
    """

    def __init__(
        self, model: GeneralizedMultimodalModel, *, trains_encoder: bool, place: Place = HERE
    ) -> None:
        self.model = model.to(place.device)
        self.place = place
        self.trains_encoder = trains_encoder
        self.optimizer = _optimizer(model, trains_encoder)

    def step(self, batch: Batch) -> float:
        """Forward, backward, update; the mean loss of a target before it."""
        batch = batch.to(self.place.device)
        features_IKV = None
        with self.place.autocast():
            if not self.trains_encoder:
                with torch.no_grad():
                    features_IKV = self.model.encode_tiles(batch.tiles)
            losses = self.model(batch, tile_features_IKV=features_IKV)
            loss = losses.total({"language": float(batch.num_targets)})
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedRows:
    """Samples as padded rows, and what is read in them.

    Args:
        ids: int64 [S, L].
        mask: 1 at tokens, 0 at padding, int64 [S, L].
        labels: IGNORED_LABEL where nothing is learnt, int64 [S, L].
        tiles: those of these samples, uint8 [I, 3, H, W].
        tile_positions: of the tiles that are read, float32 [R, 2].
        read_tiles: which tiles they are, int64 [R].
        read_slots: places in the flattened rows, int64 [R, Q].
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    tiles: Tensor
    tile_positions: Tensor
    read_tiles: Tensor
    read_slots: Tensor

    def to(self, device: torch.device) -> PaddedRows:
        """The same on a device."""
        moved = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return PaddedRows(**{name: value.to(device) for name, value in moved.items()})


class PaddedSide:
    """Stock LlamaForCausalLM on padded rows, stock SiglipVisionModel, and a copy of our projector.

    Args:
        model: whose weights it starts with; stays as it is.
        trains_encoder: whether the vision encoder gets gradients.
        length: tokens of a row; None pads to the longest sample of a batch of rows.
        place: where it computes.
        rows: samples it takes at once.
    """

    def __init__(
        self,
        model: GeneralizedMultimodalModel,
        *,
        trains_encoder: bool,
        length: int | None,
        place: Place = HERE,
        rows: int = SAMPLES_PER_ROW_BATCH,
    ) -> None:
        ours: Any = model.language_model
        config = LlamaConfig(**{**ours.causal_lm.config.to_dict(), "use_cache": False})
        causal_lm = LlamaForCausalLM._from_config(config, attn_implementation=place.attention)
        causal_lm.load_state_dict(ours.causal_lm.state_dict())
        reader = copy.deepcopy(model)
        del reader.language_model
        self.parts = nn.ModuleDict({"causal_lm": causal_lm, "reader": reader}).to(place.device)
        self.place, self.rows = place, rows
        self.causal_lm: Any = causal_lm
        self.reader = reader
        self.length = length
        self.trains_encoder = trains_encoder
        self.optimizer = _optimizer(self.parts, trains_encoder)

    def step(self, batch: Batch) -> float:
        """Forward and backward of all rows, four at a time, then one update."""
        losses = []
        for rows in self.lay_out(batch):
            with self.place.autocast():
                loss = self._loss(rows.to(self.place.device), batch.num_targets)
            loss.backward()
            losses.append(loss.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(loss.item() for loss in losses)

    def _loss(self, rows: PaddedRows, num_targets: int) -> Tensor:
        embeds_SLD = self.causal_lm.get_input_embeddings()(rows.ids)
        if len(rows.tiles):
            with torch.set_grad_enabled(self.trains_encoder):
                features_IKV = self._encode(rows.tiles)
            tokens_RQD = self.reader.read(features_IKV[rows.read_tiles], rows.tile_positions)
            flat = embeds_SLD.flatten(0, 1)
            tokens = tokens_RQD.flatten(0, 1).to(flat.dtype)
            flat = flat.index_copy(0, rows.read_slots.flatten(), tokens)
            embeds_SLD = flat.view_as(embeds_SLD)
        # Hugging Face divides by the number of targets of the whole step.
        return self.causal_lm(
            inputs_embeds=embeds_SLD,
            attention_mask=rows.mask,
            labels=rows.labels,
            num_items_in_batch=num_targets,
        ).loss

    def _encode(self, tiles_I3HW: Tensor) -> Tensor:
        """By the encoder of Hugging Face as it is, on pixels as its image processor gives them."""
        encoder: Any = self.reader.vision_encoder
        mean, std = (
            torch.tensor(part, device=tiles_I3HW.device).view(3, 1, 1)
            for part in (encoder.mean, encoder.std)
        )
        return encoder.vision_model((tiles_I3HW / 255 - mean) / std).last_hidden_state

    def lay_out(self, batch: Batch) -> Iterator[PaddedRows]:
        """The samples of a pack as rows padded on the right."""
        labels_T = torch.full_like(batch.input_ids, IGNORED_LABEL)
        labels_T[batch.target_positions + 1] = batch.targets
        ends = batch.sequence_ends
        bounds = list(zip((0, *ends), ends, strict=False))
        for first in range(0, len(bounds), self.rows):
            yield self._rows(batch, labels_T, bounds[first : first + self.rows])

    def _rows(
        self, batch: Batch, labels_T: Tensor, bounds: Sequence[tuple[int, int]]
    ) -> PaddedRows:
        length = self.length or max(end - start for start, end in bounds)
        ids, mask, labels = (
            torch.full((len(bounds), length), value) for value in (0, 0, IGNORED_LABEL)
        )
        slots, reads, tiles = [], [], []
        for row, (start, end) in enumerate(bounds):
            size = end - start
            ids[row, :size] = batch.input_ids[start:end]
            mask[row, :size] = 1
            labels[row, :size] = labels_T[start:end]
            own = _inside(batch.read_slots, start, end)
            slots.append(batch.read_slots[own] - start + row * length)
            reads.append(own)
            tiles += [
                batch.read_tiles[own],
                batch.draw_tiles[_inside(batch.draw_slots, start, end)],
            ]
        read, used = torch.cat(reads), torch.cat(tiles).unique()
        chosen = batch.read_tiles[read]
        return PaddedRows(
            ids=ids,
            mask=mask,
            labels=labels,
            tiles=batch.tiles[used],
            tile_positions=batch.tile_positions[chosen],
            read_tiles=torch.searchsorted(used, chosen),
            read_slots=torch.cat(slots),
        )


def _inside(slots_RQ: Tensor, start: int, end: int) -> Tensor:
    """Which rows of slots lie in a sequence."""
    first_R = slots_RQ[:, 0]
    return ((first_R >= start) & (first_R < end)).nonzero().flatten()


def _optimizer(module: nn.Module, trains_encoder: bool) -> torch.optim.AdamW:
    named = {
        name: parameter
        for name, parameter in module.named_parameters()
        if trains_encoder or "vision_encoder." not in name
    }
    return AdamW(lr=LEARNING_RATE).build(named)
