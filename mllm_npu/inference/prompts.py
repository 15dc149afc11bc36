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
from mllm_npu.inference.tile_cache import TileCache
from mllm_npu.processing.conversation import Conversation, Text

if TYPE_CHECKING:
    from mllm_npu.models.mllm import GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor


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


def encode_reply(processor: Processor, asked: Conversation | Sample, text: str) -> tuple[int, ...]:
    """Ids of a text as the reply to a question: raw text goes on as one, a turn begins anew.

    Many tokenizers put a blank before whatever a text begins with, so raw text is tokenised with
    what follows it, where it keeps its ids then.

    Raises:
        RequestError: the text is empty, or spells a control token.
    """
    alone = processor.encode_text(text)
    last = asked.turns[-1] if isinstance(asked, Conversation) else None
    if last is None or last.role != "document" or not isinstance(last.parts[-1], Text):
        return alone
    raw = last.parts[-1].text
    before, joined = processor.encode_text(raw), processor.encode_text(raw + text)
    follows = joined[: len(before)] == before and len(joined) > len(before)
    return joined[len(before) :] if follows else alone


def embed_prompts(
    model: GeneralizedMultimodalModel,
    samples: Sequence[Sample],
    device: torch.device,
    max_tiles: int,
    *,
    cache: TileCache | None = None,
    names: Sequence[Sequence[bytes]] = (),
) -> list[Tensor]:
    """Embed each question by itself; the tiles of all go through the encoder in batches.

    Args:
        model: embeds text and reads tiles.
        samples: encoded questions.
        device: where the model lives.
        max_tiles: tiles per pass of the vision encoder.
        cache: knows tiles that came before.
        names: of the read tiles of each question, where there is a cache.

    Returns:
        Embeddings of each question, float [L, D].
    """
    num_tiles = [len(sample.read_tiles) for sample in samples]
    if not sum(num_tiles):
        read_RQD = torch.empty(0)
    elif cache is None:
        tiles_R3HW, places_R2 = _tiles_of(samples)
        read_RQD = _read_tiles(model, tiles_R3HW, places_R2, device, max_tiles)
    else:
        every = [name for own in names for name in own]
        read_RQD = _read_unknown(model, samples, every, cache, device, max_tiles)
    prompts: list[Tensor] = []
    start = 0
    for sample, num in zip(samples, num_tiles, strict=True):
        embeds_LD = model.language_model.embed(to_device(sample.input_ids, device))
        if num:
            embeds_LD = _place(model, embeds_LD, read_RQD[start : start + num], sample, device)
        start += num
        prompts.append(embeds_LD)
    return prompts


def _place(
    model: GeneralizedMultimodalModel,
    embeds_LD: Tensor,
    tokens_RQD: Tensor,
    sample: Sample,
    device: torch.device,
) -> Tensor:
    if sample.grid_slots is None:
        slots_M = to_device(sample.read_slots.flatten(), device)
        return embeds_LD.index_copy(0, slots_M, tokens_RQD.flatten(0, 1).to(embeds_LD.dtype))
    slots, sources, weights = (
        None if value is None else to_device(value, device)
        for value in (sample.grid_slots, sample.grid_sources, sample.grid_weights)
    )
    return model.place(
        embeds_LD,
        tokens_RQD,
        slots_RQ=sample.read_slots,
        grid_slots_M=slots,
        grid_sources_MX=sources,
        grid_weights_MX=weights,
    )


def _tiles_of(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Tiles that are read, uint8 [R, 3, H, W], and their places [R, 2], on the host."""
    tiles_R3HW = torch.cat([sample.tiles[sample.read_tiles] for sample in samples])
    return tiles_R3HW, torch.cat([sample.tile_positions[sample.read_tiles] for sample in samples])


def _read_unknown(
    model: GeneralizedMultimodalModel,
    samples: Sequence[Sample],
    names: Sequence[bytes],
    cache: TileCache,
    device: torch.device,
    max_tiles: int,
) -> Tensor:
    """Tokens of all read tiles [R, Q, D]; each different one that is not known is encoded once."""
    known = {name: cache.find(name) for name in names}
    unknown = [name for name, tokens_QD in known.items() if tokens_QD is None]
    if unknown:
        first_of = {name: place for place, name in reversed(list(enumerate(names)))}
        chosen = torch.tensor([first_of[name] for name in unknown])
        tiles_R3HW, places_R2 = _tiles_of(samples)
        fresh = _read_tiles(model, tiles_R3HW[chosen], places_R2[chosen], device, max_tiles)
        for name, tokens_QD in zip(unknown, fresh, strict=True):
            known[name] = tokens_QD
            cache.keep(name, tokens_QD)
    found = [tokens_QD for name in names if (tokens_QD := known[name]) is not None]
    return torch.stack(found)


def _read_tiles(
    model: GeneralizedMultimodalModel,
    tiles_R3HW: Tensor,
    places_R2: Tensor,
    device: torch.device,
    max_tiles: int,
) -> Tensor:
    read: list[Tensor] = []
    for start in range(0, len(tiles_R3HW), max_tiles):
        chunk = slice(start, start + max_tiles)
        features_IKV = model.encode_tiles(to_device(tiles_R3HW[chunk], device))
        read.append(model.read(features_IKV, to_device(places_R2[chunk], device)))
    return torch.cat(read)
