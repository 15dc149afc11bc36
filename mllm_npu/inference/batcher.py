"""Take many requests one step further in one forward; they come and go between any two steps.

Shape letters: T new tokens, D language width, G pictures, B requests that choose a token, L tokens
of a picture's block, C entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mllm_npu.device.transfer import pick_rows, to_device
from mllm_npu.inference.events import Event
from mllm_npu.inference.image_tokens import ImageTokens
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.picture_queue import PictureQueue
from mllm_npu.inference.prefix_cache import PrefixCache
from mllm_npu.inference.sampling import Chosen, choose_tokens
from mllm_npu.inference.step_plan import plan_step
from mllm_npu.models.language_model.slots import Slots, Span

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel

Said = list[tuple[LiveRow, list[Event]]]
"""Requests and what they have to tell."""


class Batcher:
    """The requests that are being answered, the one of each slot in its place.

    Args:
        model: in evaluation mode.
        artist: the same model if it draws, else None.
        tokens: image tokens of its processor.
        slots: memory of the language model.
        pictures: gets what is to be drawn.
        tokens_per_step: see `plan_step`.
        prefill_chunk: see `plan_step`.
        prefixes: prompts that are known; None keeps none.

    Attributes:
        rows: the request of each slot, without gaps.
        num_read: tokens of prompts that were computed.
        num_chosen: tokens that were chosen.
    """

    def __init__(
        self,
        *,
        model: GeneralizedMultimodalModel,
        artist: SEED | None,
        tokens: ImageTokens,
        slots: Slots,
        pictures: PictureQueue,
        tokens_per_step: int,
        prefill_chunk: int,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._language_model = model.language_model
        self._artist = artist
        self._tokens = tokens
        self._slots = slots
        self._pictures = pictures
        self._tokens_per_step = tokens_per_step
        self._prefill_chunk = prefill_chunk
        self._prefixes = prefixes if slots.can_copy else None
        self.rows: list[LiveRow] = []
        self.num_read = 0
        self.num_chosen = 0

    @property
    def num_free(self) -> int:
        """Slots nobody is in."""
        return self._slots.num_slots - len(self.rows)

    @torch.inference_mode()
    def add(self, row: LiveRow) -> None:
        """Give a request whose prompt is embedded the next slot."""
        if self._prefixes is not None and row.marks is not None:
            prefix = self._prefixes.find(row.marks, row.prompt_blocks)
            if prefix is not None:
                self._slots.write(len(self.rows), prefix.states, prefix.length)
                row.fed = prefix.length
        self.rows.append(row)

    @torch.inference_mode()
    def remove(self, gone: Collection[LiveRow]) -> None:
        """Free the slots of requests; the last ones move into them."""
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot] in gone:
                last = self.rows.pop()
                if slot < len(self.rows):
                    self._slots.move(len(self.rows), slot, last.fed)
                    self.rows[slot] = last

    @torch.inference_mode()
    def step(self) -> Said:
        """Take every request a step further; those that have ended leave their slot.

        Returns:
            What each request says, in the order of its reply.
        """
        plan = plan_step(
            self.rows, tokens_per_step=self._tokens_per_step, prefill_chunk=self._prefill_chunk
        )
        hidden_TD = self._slots.advance(self._embed(plan), [span for _, span in plan])
        ends: dict[LiveRow, int] = {}
        end = 0
        for row, span in plan:
            ends[row] = end = end + span.length
            row.fed = span.end
            self._keep_prompt(row, span)
        complete = [row for row, _ in plan if not row.num_pending]
        said = self._begin_drawings([row for row in complete if row.draws], hidden_TD, ends)
        said += self._choose([row for row in complete if not row.finished], hidden_TD, ends)
        self.remove({row for row in complete if row.finished})
        return said

    def _embed(self, plan: Sequence[tuple[LiveRow, Span]]) -> Tensor:
        """Embeddings of new tokens [T, D]; all those of replies are looked up at once."""
        pieces: list[Tensor | int] = []
        ids: list[int] = []
        for row, span in plan:
            if row.prompt_LD is not None and span.start < row.num_prompt:
                pieces.append(row.prompt_LD[span.start : span.end])
            if span.end > row.num_prompt:
                new = row.ids[max(span.start - row.num_prompt, 0) : span.end - row.num_prompt]
                ids.extend(new)
                if pieces and isinstance(before := pieces[-1], int):
                    pieces[-1] = before + len(new)
                else:
                    pieces.append(len(new))
        if not ids:
            return _join(piece for piece in pieces if isinstance(piece, Tensor))
        device = next(self._language_model.parameters()).device
        on_host = torch.tensor(ids, dtype=torch.int64, device="cpu")
        embeds = self._language_model.embed(to_device(on_host, device))
        parts = iter(torch.split(embeds, [piece for piece in pieces if isinstance(piece, int)]))
        return _join(piece if isinstance(piece, Tensor) else next(parts) for piece in pieces)

    def _keep_prompt(self, row: LiveRow, span: Span) -> None:
        self.num_read += max(min(span.end, row.num_prompt) - span.start, 0)
        if span.end < row.num_prompt or span.start >= row.num_prompt:
            return
        row.prompt_LD = None
        prefixes = self._prefixes
        if prefixes is None or row.marks is None or row.num_prompt < prefixes.least:
            return
        if not prefixes.is_known(row.marks):
            prefixes.keep(row.marks, self._slots.read(span.slot, row.num_prompt))

    def _begin_drawings(
        self, rows: Sequence[LiveRow], hidden_TD: Tensor, ends: dict[LiveRow, int]
    ) -> Said:
        if not rows or self._artist is None:
            return []
        length = len(self._tokens.block)
        places = [place for row in rows for place in range(ends[row] - length, ends[row])]
        hidden_GLD = pick_rows(hidden_TD, places).view(len(rows), length, -1)
        features_GPV = self._tokens.predict_features(self._artist, hidden_GLD)
        said: Said = []
        for row, features_PV in zip(rows, features_GPV, strict=True):
            self._pictures.add(row, features_PV)
            row.order.leave_gap(row.num_pictures)
            row.end_picture()
            said.append((row, row.order.add(row.finish_if_full())))
        return said

    def _choose(self, rows: Sequence[LiveRow], hidden_TD: Tensor, ends: dict[LiveRow, int]) -> Said:
        if not rows:
            return []
        scores_BC = self._tokens.mask_scores(
            self._language_model.logits(pick_rows(hidden_TD, [ends[row] - 1 for row in rows])),
            may_draw=[self._artist is not None and row.may_draw for row in rows],
        )
        self.num_chosen += len(rows)
        penalised = any(row.options.repetition_penalty != 1 for row in rows)
        chosen = choose_tokens(
            scores_BC,
            options=[row.options for row in rows],
            generators=[row.generator for row in rows],
            histories=[row.history for row in rows] if penalised else (),
        )
        return [(row, _tell(row, one)) for row, one in zip(rows, chosen, strict=True)]


def _tell(row: LiveRow, chosen: Chosen) -> list[Event]:
    try:
        return row.order.add(row.take(chosen))
    except Exception as error:  # noqa: BLE001  # it ends this request; the others go on
        row.error, row.finished = error, True
        return []


def _join(parts: Iterable[Tensor]) -> Tensor:
    every = list(parts)
    return every[0] if len(every) == 1 else torch.cat(every)
