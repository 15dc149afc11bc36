"""Pictures and their texts brought together by a sigmoid loss over all pairs of a batch.

Shape letters: B pictures with their texts, K vision tokens, V vision width, D text width,
E common width, L tokens of all texts end to end, N targets, R read tiles, S sequences.

Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_npu.batch import Batch
from mllm_npu.device.transfer import on_host, to_device
from mllm_npu.models.interfaces import LanguageModel
from mllm_npu.train.objectives.reconstruction import read_sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTexts:
    """Which tile goes with which text, worked out on the host.

    Args:
        tiles_B: index of each picture's only tile, int64.
        ids_L: tokens of the texts, int64.
        positions_L: place of each token in its own text, int64.
        ends: cumulative ends of the texts.
        text_numbers_B: equal numbers mark equal texts, int64.
        count: real pairs; 0 when the batch has none and one made-up pair keeps the graph the same.
    """

    tiles_B: Tensor
    ids_L: Tensor
    positions_L: Tensor
    ends: tuple[int, ...]
    text_numbers_B: Tensor
    count: int


def count_pairs(batch: Batch) -> int:
    """Number of sequences with exactly one read tile and at least one target."""
    return int(_pair_sequences(batch).sum())


@on_host
def pair_texts(batch: Batch) -> PictureTexts:
    """Pair the tile of each fitting sequence with the target tokens of that sequence.

    Args:
        batch: on the host.
    """
    is_pair_S = _pair_sequences(batch)
    count = int(is_pair_S.sum())
    if count == 0:
        return PictureTexts(
            tiles_B=torch.zeros(1, dtype=torch.int64),
            ids_L=batch.input_ids[:1],
            positions_L=torch.zeros(1, dtype=torch.int64),
            ends=(1,),
            text_numbers_B=torch.zeros(1, dtype=torch.int64),
            count=0,
        )
    reads_R = read_sequences(batch)
    chosen_R = is_pair_S[reads_R].nonzero()[:, 0]
    order_B = chosen_R[reads_R[chosen_R].argsort()]
    target_order_N = batch.target_sequences.argsort(stable=True)
    lengths_S = torch.bincount(batch.target_sequences, minlength=len(batch.sequence_ends)).tolist()
    texts = [
        ids
        for ids, is_pair in zip(
            torch.split(batch.targets[target_order_N], lengths_S), is_pair_S.tolist(), strict=True
        )
        if is_pair
    ]
    numbers: dict[tuple[int, ...], int] = {}
    equal = [numbers.setdefault(tuple(text.tolist()), len(numbers)) for text in texts]
    lengths = [len(text) for text in texts]
    return PictureTexts(
        tiles_B=batch.read_tiles[order_B],
        ids_L=torch.cat(texts),
        positions_L=torch.cat([torch.arange(length) for length in lengths]),
        ends=tuple(torch.tensor(lengths).cumsum(0).tolist()),
        text_numbers_B=torch.tensor(equal),
        count=count,
    )


def _pair_sequences(batch: Batch) -> Tensor:
    num_sequences = len(batch.sequence_ends)
    num_reads_S = torch.bincount(read_sequences(batch), minlength=num_sequences)
    num_targets_S = torch.bincount(batch.target_sequences, minlength=num_sequences)
    return (num_reads_S == 1) & (num_targets_S > 0)


class Contrast(nn.Module):
    """Attention pooling of a picture, a text tower, and the sigmoid loss between them.

    Equal texts of a batch are no negatives of each other.

    Args:
        text_tower: reads the texts; its last token stands for the whole text.
        vision_width: V.
        width: E, size of the common space.
        first_log_scale: logarithm of the factor on the cosine at the start.
        first_bias: added to it at the start; negative, because most pairs do not belong together.
    """

    def __init__(
        self,
        *,
        text_tower: LanguageModel,
        vision_width: int,
        width: int,
        first_log_scale: float = 2.3,
        first_bias: float = -6.0,
    ) -> None:
        super().__init__()
        self.text_tower = text_tower
        self.attention = nn.Linear(vision_width, 1)
        self.vision_projection = nn.Linear(vision_width, width)
        self.text_projection = nn.Linear(text_tower.width, width)
        # One element each and not 0-d, which could not be sharded.
        self.log_scale = nn.Parameter(torch.tensor([first_log_scale]))
        self.bias = nn.Parameter(torch.tensor([first_bias]))

    def forward(self, features_IKV: Tensor, pairs: PictureTexts) -> Tensor:
        """Sum over all pairs of a picture and a text, 0-d; 0 for a made-up pair.

        Args:
            features_IKV: features of all tiles of the batch.
            pairs: on the host.
        """
        device = features_IKV.device
        features_BKV = features_IKV.index_select(0, to_device(pairs.tiles_B, device))
        attention_BK1 = self.attention(features_BKV).softmax(dim=1)
        pictures_BE = self.vision_projection((features_BKV * attention_BK1).sum(dim=1))
        texts_BE = self.text_projection(self._read_texts(pairs, device))
        cosine_BB = (
            F.normalize(pictures_BE.float(), dim=-1) @ F.normalize(texts_BE.float(), dim=-1).T
        )
        numbers_B = pairs.text_numbers_B
        belongs_BB = (numbers_B[:, None] == numbers_B[None]).float() * 2 - 1
        signs_BB = to_device(belongs_BB, device)
        logits_BB = cosine_BB * self.log_scale.exp() + self.bias
        return -F.logsigmoid(signs_BB * logits_BB).sum() * float(pairs.count > 0)

    def _read_texts(self, pairs: PictureTexts, device: torch.device) -> Tensor:
        hidden_LD = self.text_tower(
            self.text_tower.embed(to_device(pairs.ids_L, device)),
            position_ids_T=to_device(pairs.positions_L, device),
            sequence_ends=pairs.ends,
        )
        last_B = torch.tensor(pairs.ends) - 1
        return hidden_LD.index_select(0, to_device(last_B, device))
