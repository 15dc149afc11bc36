"""Turn encoded questions into embeddings, the pictures they show included.

Shape letters: L tokens of a question, M picture slots, R tiles that are read, I tiles at once,
K vision tokens per tile, V vision width, Q tokens per read tile, D language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mllm_npu.batch import Sample
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.processing.conversation import Conversation, Text

if TYPE_CHECKING:
    from mllm_npu.models.mllm import GeneralizedMultimodalModel


def check_question(conversation: Conversation) -> None:
    """Refuse a conversation that asks for nothing.

    Raises:
        RequestError: if there is no turn, or the last one says nothing.
    """
    last = conversation.turns[-1] if conversation.turns else None
    if last is None or not any(
        part.text.strip() if isinstance(part, Text) else True for part in last.parts
    ):
        raise RequestError("The prompt is empty. Give a text or an image.")


def embed_prompts(
    model: GeneralizedMultimodalModel,
    samples: Sequence[Sample],
    device: torch.device,
    max_tiles: int,
) -> list[Tensor]:
    """Embed each question by itself; the tiles of all go through the encoder in batches.

    Args:
        model: embeds text and reads tiles.
        samples: encoded questions.
        device: where the model lives.
        max_tiles: tiles per pass of the vision encoder.

    Returns:
        Embeddings of each question, float [L, D].
    """
    num_tiles = [len(sample.read_tiles) for sample in samples]
    read_RQD = _read_tiles(model, samples, device, max_tiles) if sum(num_tiles) else torch.empty(0)
    prompts: list[Tensor] = []
    start = 0
    for sample, num in zip(samples, num_tiles, strict=True):
        embeds_LD = model.language_model.embed(to_device(sample.input_ids, device))
        if num:
            tokens_MD = read_RQD[start : start + num].flatten(0, 1).to(embeds_LD.dtype)
            slots_M = to_device(sample.read_slots.flatten(), device)
            embeds_LD = embeds_LD.index_copy(0, slots_M, tokens_MD)
        start += num
        prompts.append(embeds_LD)
    return prompts


def _read_tiles(
    model: GeneralizedMultimodalModel,
    samples: Sequence[Sample],
    device: torch.device,
    max_tiles: int,
) -> Tensor:
    tiles_R3HW = torch.cat([sample.tiles[sample.read_tiles] for sample in samples])
    places_R2 = torch.cat([sample.tile_positions[sample.read_tiles] for sample in samples])
    read: list[Tensor] = []
    for start in range(0, len(tiles_R3HW), max_tiles):
        chunk = slice(start, start + max_tiles)
        features_IKV = model.encode_tiles(to_device(tiles_R3HW[chunk], device))
        read.append(model.read(features_IKV, to_device(places_R2[chunk], device)))
    return torch.cat(read)
