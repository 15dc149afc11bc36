"""Which tokens a model may choose, and the row of tokens a drawn picture is.

Shape letters: B rows, L new tokens, D language width, C entries of the vocabulary, P tokens per
drawn picture, V vision width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED
    from mllm_npu.processing.processor import Processor


class ImageTokens:
    """The image ids of a processor, made ready for generation.

    A picture is ``<img>``, its P slots and ``</img>``. Only ``<img>`` is ever chosen; the others
    follow from it, so the whole block is one forward pass.

    Args:
        processor: knows the ids and the number of slots of a drawn picture.
        vocab_size: rows of the language model's table; those without a token are never chosen.
        device: where scores and hidden states live.

    Attributes:
        begin: id of ``<img>``; None where pictures have no tags, so that none is drawn.
        block: ids of a whole picture, P + 2 of them; none without tags.
    """

    def __init__(self, *, processor: Processor, vocab_size: int, device: torch.device) -> None:
        ids = processor.image_ids
        self.begin = ids.begin
        self.block: tuple[int, ...] = ()
        if ids.begin is not None and ids.end is not None:
            self.block = (ids.begin, *ids.slots[: processor.num_drawn_tokens], ids.end)
        banned_C = torch.zeros(vocab_size, dtype=torch.bool)
        closing = (ids.end, ids.patch_begin, ids.patch_end)
        banned_C[[*ids.slots, *(number for number in closing if number is not None)]] = True
        banned_C[len(processor.tokenizer) :] = True
        if processor.pad_id != processor.eos_id:
            banned_C[processor.pad_id] = True
        self._banned_C = to_device(banned_C, device)

    def mask_scores(self, scores_BC: Tensor, *, may_draw: Sequence[bool]) -> Tensor:
        """Set what may not be chosen to -inf, float [B, C] -> float32 [B, C].

        Args:
            scores_BC: logits.
            may_draw: for each row whether ``<img>`` may be chosen.
        """
        masked_BC = scores_BC.float().masked_fill(self._banned_C, -torch.inf)
        if self.begin is not None and not all(may_draw):
            silent_B = torch.tensor([not may for may in may_draw])
            masked_BC[:, self.begin].masked_fill_(to_device(silent_B, masked_BC.device), -torch.inf)
        return masked_BC

    def predict_features(self, model: SEED, hidden_BLD: Tensor) -> Tensor:
        """Give the features of a picture whose block was just fed, as the last tokens of every row.

        Args:
            model: one that draws.
            hidden_BLD: states of the fed tokens, float [B, L, D] with L >= P + 2.

        Returns:
            Features the image decoder takes, float [B, P, V].
        """
        num_slots = len(self.block) - 2
        return model.predict_features(hidden_BLD[:, -1 - num_slots : -1])
