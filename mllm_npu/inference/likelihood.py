"""How likely given texts are as replies: many questions at once, what they have in common once.

Questions that begin alike (solved examples of a benchmark, a picture with several choices) are a
family: their common beginning is computed once and copied. What differs is fed together, padded to
one length, so that a family is one dense call per layer.

Shape letters: L tokens of a row, D language width, N places that are read, V vocabulary, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mllm_npu.batch import Sample, tile_blocks
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError, TooLongError
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.likelihood_rows import (
    Family,
    Row,
    fed_lengths,
    find_families,
    split_families,
)
from mllm_npu.inference.prefix_cache import mark_tokens
from mllm_npu.inference.prompts import check_question, embed_prompts, encode_reply
from mllm_npu.inference.tile_cache import name_tiles
from mllm_npu.models.language_model.slots import Slots, Span
from mllm_npu.processing.conversation import Conversation

if TYPE_CHECKING:
    from mllm_npu.models.mllm import GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor

Tokens = tuple[int, ...]
"""A text that is tokens already."""

Question = tuple[Conversation | Sample, Sequence[str | Tokens]]
"""What is asked, and the texts that are weighed as replies to it; each may be tokens already."""

_LOGITS_AT_ONCE = 1 << 26
"""Scores of the vocabulary that are held at once."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What is known of a question's texts so far."""

    texts: Sequence[str | Tokens]
    found: dict[int, Likelihood] = field(default_factory=dict)


class LikelihoodScorer:
    """Weighs texts by the model's own probabilities.

    Args:
        model: in evaluation mode, on ``device``.
        processor: the one the model was trained with.
        device: where the model runs.
        max_tokens: longest question with a text.
        max_rows: rows that are fed together.
        tokens_per_step: tokens of a forward, about.
        max_tiles: tiles per pass of the vision encoder.
        shares: whether common beginnings are computed once; without, every row is fed whole.
    """

    def __init__(
        self,
        *,
        model: GeneralizedMultimodalModel,
        processor: Processor,
        device: torch.device,
        max_tokens: int,
        max_rows: int = 64,
        tokens_per_step: int = 8192,
        max_tiles: int = 64,
        shares: bool = True,
    ) -> None:
        self._model = model
        self._processor = processor
        self._device = device
        self._max_tokens = max_tokens
        self._max_rows = max_rows
        self._tokens_per_step = tokens_per_step
        self._max_tiles = max_tiles
        self._shares = shares
        self._resident: Family | None = None

    @torch.inference_mode()
    def weigh(self, questions: Sequence[Question]) -> Iterator[tuple[int, tuple[Likelihood, ...]]]:
        """Weigh the texts of questions; those that begin alike should stand side by side.

        Returns:
            Number of a question and the likelihoods of its texts, as soon as they are known.

        Raises:
            RequestError: before anything is computed, if one cannot be asked as it was put.
        """
        self._resident = None
        rows = [row for number, each in enumerate(questions) for row in self._lay_out(number, each)]
        tallies = [_Tally(texts=texts) for _, texts in questions]
        if not rows:
            return
        slots = self._model.language_model.new_slots(
            min(self._max_rows, len(rows)), max(row.length for row in rows)
        )
        families = find_families(rows, shares=self._shares and slots.can_copy)
        for batch in split_families(
            families, max_rows=self._max_rows, max_tokens=self._tokens_per_step
        ):
            for row, likelihoods in self._weigh_batch(slots, batch):
                tally = tallies[row.question]
                for number, logprob, is_greedy in likelihoods:
                    text = tally.texts[number]
                    tally.found[number] = Likelihood(
                        text=text if isinstance(text, str) else self._processor.decode_text(text),
                        logprob=logprob,
                        num_tokens=len(dict(row.texts)[number]),
                        is_greedy=is_greedy,
                    )
                if len(tally.found) == len(tally.texts):
                    yield row.question, tuple(found for _, found in sorted(tally.found.items()))

    def _lay_out(self, number: int, question: Question) -> list[Row]:
        asked, texts = question
        if not texts:
            raise RequestError("There are no texts to weigh. Give at least one.")
        sample = self._encode(asked)
        marks = mark_tokens(sample, name_tiles(sample))
        by_stem: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for place, text in enumerate(texts):
            ids = encode_reply(self._processor, asked, text) if isinstance(text, str) else text
            if not ids:
                raise RequestError("A text to weigh has no tokens. Leave it out.")
            by_stem.setdefault(ids[:-1], []).append((place, ids))
        longest = sample.num_tokens + max(len(stem) for stem in by_stem)
        if longest > self._max_tokens:
            raise TooLongError(
                f"A question with a text to weigh has {longest} tokens, the model takes "
                f"{self._max_tokens}. Shorten it."
            )
        sees_tiles = self._model.bidirectional_images
        return [
            Row(
                question=number,
                sample=sample,
                marks=np.concatenate([marks, np.asarray(stem, dtype=np.int64)]),
                stem=stem,
                texts=tuple(ends),
                blocks=tile_blocks(sample.read_slots) if sees_tiles else (),
            )
            for stem, ends in by_stem.items()
        ]

    def _encode(self, asked: Conversation | Sample) -> Sample:
        if isinstance(asked, Sample):
            if not asked.num_tokens:
                raise RequestError("The prompt is empty. Give at least one token.")
            return asked
        check_question(asked)
        return self._processor.encode(asked, reply=True)

    def _weigh_batch(
        self, slots: Slots, batch: Sequence[Family]
    ) -> Iterable[tuple[Row, list[tuple[int, float, bool]]]]:
        rows = [row for family in batch for row in family.rows]
        embeds = self._embed(rows)
        self._feed_common(slots, batch, embeds)
        starts = [family.common for family in batch for _ in family.rows]
        lengths = fed_lengths(batch)
        spans = [
            Span(
                slot=slot,
                start=start,
                length=length,
                blocks=tuple((a - start, b - start) for a, b in row.blocks if a >= start),
            )
            for slot, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True))
        ]
        pieces = [
            _pad(embeds_LD[start:], length)
            for embeds_LD, start, length in zip(embeds, starts, lengths, strict=True)
        ]
        hidden_TD = slots.advance(torch.cat(pieces), spans)
        places: list[int] = []
        begin = 0
        for row, span in zip(rows, spans, strict=True):
            first = begin + row.sample.num_tokens - 1 - span.start
            places += range(first, first + len(row.stem) + 1)
            begin += span.length
        index_N = to_device(torch.tensor(places, device="cpu"), self._device)
        return zip(rows, self._read(rows, hidden_TD.index_select(0, index_N)), strict=True)

    def _embed(self, rows: Sequence[Row]) -> list[Tensor]:
        """Embeddings of each row, float [L, D]; a question with several rows is embedded once."""
        samples = {row.question: row.sample for row in rows}
        prompts = embed_prompts(self._model, list(samples.values()), self._device, self._max_tiles)
        prompt_of = dict(zip(samples, prompts, strict=True))
        stems = torch.tensor([number for row in rows for number in row.stem], device="cpu")
        embedded = self._model.language_model.embed(to_device(stems.long(), self._device))
        parts = torch.split(embedded, [len(row.stem) for row in rows])
        return [
            torch.cat([prompt_of[row.question], part.to(prompt_of[row.question].dtype)])
            for row, part in zip(rows, parts, strict=True)
        ]

    def _feed_common(self, slots: Slots, batch: Sequence[Family], embeds: Sequence[Tensor]) -> None:
        """Let the slots of each family begin with what its rows have in common."""
        slot, begun = 0, []
        for family in batch:
            if family.common:
                begun.append((slot, family))
            slot += len(family.rows)
        if len(begun) == len(batch) == 1 and self._is_there(batch[0]):
            return
        self._resident = None
        if not begun:
            return
        spans = [
            Span(slot=slot, start=0, length=family.common, blocks=family.common_blocks)
            for slot, family in begun
        ]
        slots.advance(
            torch.cat(
                [embeds[slot][: span.end] for (slot, _), span in zip(begun, spans, strict=True)]
            ),
            spans,
        )
        for slot, family in begun:
            states = slots.read(slot, family.common)
            for other in range(slot + 1, slot + len(family.rows)):
                slots.write(other, states, family.common)
        if len(batch) == 1:
            self._resident = batch[0]

    def _is_there(self, family: Family) -> bool:
        """Whether the first slots begin with it already, from the part of it fed just before."""
        there = self._resident
        return (
            there is not None
            and there.number == family.number
            and len(there.rows) >= len(family.rows)
        )

    def _read(self, rows: Sequence[Row], hidden_ND: Tensor) -> list[list[tuple[int, float, bool]]]:
        """For each row the number, log-probability and greediness of its texts."""
        places: list[int] = []
        ids: list[int] = []
        begin = 0
        for row in rows:
            for _, text_ids in row.texts:
                places += range(begin, begin + len(text_ids))
                ids += text_ids
            begin += len(row.stem) + 1
        values, is_best = self._pick(hidden_ND, np.asarray(places), torch.tensor(ids))
        each = iter(zip(values, is_best, strict=True))
        found = []
        for row in rows:
            own = []
            for number, text_ids in row.texts:
                tokens = [next(each) for _ in text_ids]
                own.append(
                    (number, math.fsum(value for value, _ in tokens), all(b for _, b in tokens))
                )
            found.append(own)
        return found

    def _pick(
        self, hidden_ND: Tensor, places_W: NDArray[np.int64], ids_W: Tensor
    ) -> tuple[list[float], list[bool]]:
        """Log-probabilities of tokens, each at its place, and whether it is the likeliest there."""
        step = max(1, _LOGITS_AT_ONCE // self._model.language_model.vocab_size)
        order = np.argsort(places_W, kind="stable")
        picked, best = [], []
        for start in range(0, len(hidden_ND), step):
            here = order[(places_W[order] >= start) & (places_W[order] < start + step)]
            place_W = to_device(torch.from_numpy(places_W[here] - start), self._device)
            id_W = to_device(ids_W[torch.from_numpy(here)], self._device)
            logits_NV = self._model.language_model.logits(hidden_ND[start : start + step]).float()
            rows_W, logits_W = logits_NV.logsumexp(-1), logits_NV[place_W, id_W]
            picked.append(logits_W - rows_W[place_W])
            best.append(logits_NV.argmax(-1)[place_W] == id_W)
        back = np.argsort(order, kind="stable")
        values = torch.cat(picked).cpu()[back].tolist()
        return values, torch.cat(best).cpu()[back].tolist()


def _pad(embeds_LD: Tensor, length: int) -> Tensor:
    """Zeros after a row; nothing before them sees them."""
    return F.pad(embeds_LD, (0, 0, 0, length - len(embeds_LD)))
