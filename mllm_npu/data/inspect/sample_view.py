"""Sample view: a sample as the model sees it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mllm_npu.batch import Sample
from mllm_npu.data.inspect.picture_view import PictureView, view_pictures
from mllm_npu.data.inspect.token_piece import PieceCutter, TokenPiece
from mllm_npu.data.pack import Pick
from mllm_npu.processing.conversation import Conversation
from mllm_npu.processing.tiling import Tiling


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """A sample of a plan.

    Args:
        source: name of its data set.
        task: kind of row.
        key: name of the row in its shard.
        shard: path of the shard.
        pick: its numbers in the plan.
        pieces: its tokens; every token is in exactly one piece.
        pictures: in reading order, with their tiles.
        tiles: pixels, uint8 [I, 3, S, S].
        targets: drawn pictures at the image decoder's size, uint8 [G, 3, S, S]; None without one.
        conditions: the pictures they change, likewise.
    """

    source: str
    task: str
    key: str
    shard: str
    pick: Pick
    pieces: tuple[TokenPiece, ...]
    pictures: tuple[PictureView, ...]
    tiles: Tensor
    targets: Tensor | None = None
    conditions: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the sample."""
        return self.pieces[-1].end if self.pieces else 0

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return sum(len(piece.ids) for piece in self.pieces if piece.carries_loss)

    @property
    def num_drawn(self) -> int:
        """Pictures whose features are regressed."""
        return sum(picture.is_drawn for picture in self.pictures)

    @property
    def num_tiles(self) -> int:
        """Tiles that the vision encoder sees."""
        return len(self.tiles)


def view_sample(
    sample: Sample,
    conversation: Conversation,
    *,
    pick: Pick,
    shard: str,
    cutter: PieceCutter,
    any_resolution: Tiling,
) -> SampleView:
    """Everything there is to see of a sample.

    Args:
        sample: its encoding.
        conversation: what it was encoded from.
        pick: its numbers in the plan.
        shard: path of its shard.
        cutter: knows the tokenizer.
        any_resolution: what cut its pictures.

    Raises:
        DataError: if the sample does not belong to the conversation.
    """
    return SampleView(
        source=sample.source,
        task=sample.task,
        key=sample.key,
        shard=shard,
        pick=pick,
        pieces=cutter.cut(sample),
        pictures=view_pictures(conversation, sample, any_resolution),
        tiles=sample.tiles,
        targets=sample.pictures,
        conditions=sample.conditions,
    )
