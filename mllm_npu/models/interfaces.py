"""What a multimodal model expects of its parts; every part is one abstract class, inherited once.

Shape letters: I tiles, H W pixels, K vision tokens per tile, V vision width, T packed tokens, D
language width, B rows of a dense batch, L tokens of a row, N chosen tokens, G drawn pictures, P
tokens per drawn picture, S pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mllm_npu.batch import Blocks
from mllm_npu.models.language_model.own_caches import OwnCaches
from mllm_npu.models.language_model.slots import Slots


class VisionEncoder(nn.Module, ABC):
    """Turns uint8 tiles into features; normalises on the device it lives on.

    Attributes:
        width: V, size of a feature.
        num_tokens: K, features per tile.
        tile_size: pixels of a tile's edge.
        mean: subtracted from each channel of a picture in 0..1.
        std: divides each channel after that.
    """

    width: int
    num_tokens: int
    tile_size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def empty_tile(self) -> Tensor:
        """The tile whose normalised pixels are all zero, float32 0..255 [3, H, W]."""
        return torch.tensor(self.mean)[:, None, None].mul(255).repeat(1, *[self.tile_size] * 2)

    @abstractmethod
    def forward(self, tiles_I3HW: Tensor) -> Tensor:
        """Encode tiles, uint8 [I, 3, H, W] (or float 0..255) -> float [I, K, V]."""

    @abstractmethod
    def sharding_units(self) -> Sequence[nn.Module]:
        """Blocks that sharding and checkpointing wrap one by one, in order of execution."""


class Projector(nn.Module, ABC):
    """Turns a row of features of one width into a row of another.

    Attributes:
        input_dim: V, width of a feature it takes.
        output_dim: D, width of a token it gives.
        num_queries: tokens it gives per tile.
        num_tokens: tokens it needs per tile; None where any number will do.
    """

    input_dim: int
    output_dim: int
    num_queries: int
    num_tokens: int | None = None

    @abstractmethod
    def forward(self, features_IKV: Tensor) -> Tensor:
        """Project float [I, K, V] -> float [I, num_queries, D]."""


class LanguageModel(nn.Module, ABC):
    """A causal language model that is fed embeddings and gives hidden states.

    Attributes:
        width: D, size of an embedding and of a hidden state.
        vocab_size: rows of the embedding table.
        mixed_lengths: whether ``extend`` takes rows of different lengths.
        max_tokens: longest sequence it takes; None where there is no limit.
    """

    width: int
    vocab_size: int
    mixed_lengths: bool = False
    max_tokens: int | None = None

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Look up token embeddings, int64 [...] -> float [..., D]."""

    @abstractmethod
    def forward(
        self,
        embeds_TD: Tensor,
        *,
        position_ids_T: Tensor,
        sequence_ends: Sequence[int],
        blocks: Blocks = (),
    ) -> Tensor:
        """Run packed sequences -> last hidden states, final norm applied, float [T, D].

        Args:
            embeds_TD: embeddings of all sequences end to end.
            position_ids_T: place of each token in its own sequence, int64.
            sequence_ends: cumulative ends on the host, without a leading 0.
            blocks: runs of tokens that see all of themselves; the others see what is before them.
        """

    @abstractmethod
    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Score the vocabulary from hidden states, float [..., D] -> float [..., vocab_size]."""

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key-value cache for ``extend``."""

    @abstractmethod
    def extend(
        self,
        embeds_BLD: Tensor,
        cache: Any,
        lengths: Sequence[int] | None = None,
        *,
        blocks: Sequence[Blocks] = (),
    ) -> Tensor:
        """Append L tokens to every row of the cache and give their hidden states, float [B, L, D].

        Args:
            embeds_BLD: embeddings of the new tokens, padded on the right where rows get fewer than
                L.
            cache: from ``new_cache``, changed in place; its ``lengths`` are the tokens of each row
                and its ``select(rows)`` keeps some rows.
            lengths: valid new tokens of each row, 0..L, on the host; None means all.
            blocks: for each row the runs of its new tokens that see all of themselves; none at all
                means that no row has any.
        """

    def new_slots(
        self, num_slots: int, max_tokens: int, *, first_tokens: int | None = None
    ) -> Slots:
        """Memory of several requests that are fed together, step by step.

        Args:
            num_slots: requests at once.
            max_tokens: longest request.
            first_tokens: tokens a slot has room for before it grows; None makes all room at once.
        """
        return OwnCaches(self, num_slots=num_slots, max_tokens=max_tokens)

    @abstractmethod
    def resize_vocabulary(self, num_tokens: int) -> None:
        """Grow table and head to ``num_tokens`` rows; new input rows are the mean of the old."""

    @abstractmethod
    def sharding_units(self) -> Sequence[nn.Module]:
        """Decoder blocks in order of execution."""


class ImageDecoder(nn.Module, ABC):
    """Draws a picture from the features a vision encoder would have seen in it.

    Attributes:
        width: size of a condition feature.
        num_tokens: P, condition features per picture.
        picture_size: S, pixels of the drawn picture's edge.
        takes_condition: whether it draws with a second picture in view, the one that is edited.
        needs_empty: whether guidance needs the features of the empty tile; else it has learnt its
            own.
    """

    width: int
    num_tokens: int
    picture_size: int
    takes_condition: bool = False
    needs_empty: bool = False

    @abstractmethod
    def encode_pictures(self, pictures_G3SS: Tensor) -> Tensor:
        """What the loss needs of pictures, uint8 [G, 3, S, S] -> float [G, C, H, W]; no gradient.

        It does not change while the decoder is trained, so it may be kept.
        """

    @abstractmethod
    def loss(
        self,
        encoded_GCHW: Tensor,
        features_GPV: Tensor,
        *,
        conditions_GCHW: Tensor | None = None,
        empty_PV: Tensor | None = None,
    ) -> Tensor:
        """Loss of each picture given its features -> float32 [G].

        Args:
            encoded_GCHW: from ``encode_pictures``.
            features_GPV: features of each picture.
            conditions_GCHW: ``encode_pictures`` of the pictures in view, zeros where there is none.
            empty_PV: features of the empty tile, where ``needs_empty``.
        """

    @abstractmethod
    def decode(
        self,
        features_GPV: Tensor,
        *,
        steps: int,
        guidance: float,
        generator: Generator | Sequence[Generator] | None,
        empty_PV: Tensor | None = None,
        conditions_G3SS: Tensor | None = None,
        image_guidance: float = 1.5,
    ) -> Tensor:
        """Draw one picture per row of features, -> uint8 [G, 3, S, S].

        Args:
            features_GPV: what to draw.
            steps: solver steps.
            guidance: classifier-free guidance scale; 1 switches it off.
            generator: source of the starting noise, on the CPU so that a seed means the same on
                every device; a sequence gives every picture its own, so that it does not depend on
                who else is in the batch.
            empty_PV: features of the empty tile, where ``needs_empty``.
            conditions_G3SS: the pictures in view, uint8, where ``takes_condition``; None: none.
            image_guidance: guidance scale of the picture in view.
        """

    @abstractmethod
    def sharding_units(self) -> Sequence[nn.Module]:
        """Blocks that sharding and checkpointing wrap one by one."""


def count_parameters(parts: Iterable[nn.Module]) -> int:
    """Number of parameters in ``parts``, those counted once that are shared."""
    return sum({id(p): p.numel() for part in parts for p in part.parameters()}.values())
