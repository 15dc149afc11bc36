"""Answer requests as they come: they join and leave the running batch at every step."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import torch

from mllm_npu.errors import RequestError
from mllm_npu.inference.batcher import Batcher
from mllm_npu.inference.live_stats import EngineStats
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.packed_linear import pack_linear, unpack_linear
from mllm_npu.inference.picture_queue import PictureJob, PictureQueue
from mllm_npu.inference.prefix_cache import PrefixCache, mark_tokens
from mllm_npu.inference.prompts import embed_prompts
from mllm_npu.inference.request_desk import RequestDesk
from mllm_npu.inference.row_maker import RowMaker
from mllm_npu.inference.ticket import Ticket
from mllm_npu.inference.tile_cache import TileCache, name_tiles
from mllm_npu.processing.conversation import Conversation

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor

_TILES_SHARE = 0.25
"""Memory of tiles, in parts of that of prompts."""


class LiveEngine:
    """A model that answers many callers at once; a reply depends on its request alone.

    One thread runs the language model, a second one draws, so that text of others goes on.

    Args:
        model: put into evaluation mode and moved to ``device``.
        processor: the one the model was trained with.
        device: where the model runs.
        max_slots: requests that are answered at once; their memory is allocated here.
        tokens_per_step: tokens of a forward, about.
        prefill_chunk: tokens of one prompt in a forward, about.
        max_queue: requests that may wait for a slot.
        max_seconds: time of a request, its waiting included; then its reply ends with "length".
        prefix_gib: memory for prompts that may come again; 0 keeps none, and no tiles.
        max_pictures: pictures that are drawn together.
        max_tiles: tiles per pass of the vision encoder.
        pack_weights: on a CPU keep a second copy of the weights in a layout that is fast for few
            rows, until the engine is closed; see `pack_linear`.
    """

    def __init__(
        self,
        *,
        model: SEED | GeneralizedMultimodalModel,
        processor: Processor,
        device: torch.device | str,
        max_slots: int = 8,
        tokens_per_step: int = 512,
        prefill_chunk: int = 256,
        max_queue: int = 256,
        max_seconds: float = 600.0,
        prefix_gib: float = 0.5,
        max_pictures: int = 8,
        max_tiles: int = 64,
        pack_weights: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.max_tiles = max_tiles
        if pack_weights:
            pack_linear(self.model)
        self._maker = RowMaker(model=self.model, processor=processor, device=self.device)
        num_bytes = int(prefix_gib * 2**30)
        self._prefixes = PrefixCache(max_bytes=num_bytes)
        self._tiles = TileCache(max_bytes=int(num_bytes * _TILES_SHARE))
        self._pictures = PictureQueue(self._maker.artist, max_batch=max_pictures)
        with torch.inference_mode():
            slots = self.model.language_model.new_slots(max_slots, self._maker.max_tokens)
        self._batcher = Batcher(
            model=self.model,
            artist=self._maker.artist,
            tokens=self._maker.tokens,
            slots=slots,
            pictures=self._pictures,
            tokens_per_step=tokens_per_step,
            prefill_chunk=prefill_chunk,
            prefixes=self._prefixes if num_bytes else None,
        )
        self._desk = RequestDesk(
            max_queue=max_queue, max_seconds=max_seconds, forget=self._pictures.forget
        )
        self._numbers = itertools.count()
        self._drawn: deque[PictureJob] = deque()
        self._closing = self._stopped = False
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=run.__name__, daemon=True)
            for run in (self._answer, self._draw)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def can_draw(self) -> bool:
        """Whether the model makes pictures."""
        return self._maker.artist is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(drain=False)

    def submit(self, conversation: Conversation, options: GenerationOptions) -> Ticket:
        """Ask; any thread may.

        Raises:
            BusyError: too many wait already.
            RequestError: it cannot be answered as it was put, or the engine does not run.
        """
        begun = time.monotonic()
        self._refuse_if_not_running()
        self._desk.refuse_if_full()
        row, sample = self._maker.make(next(self._numbers), conversation, options)
        names = name_tiles(sample)
        row.marks = mark_tokens(sample, names)
        ticket = Ticket(
            row=row,
            sample=sample,
            names=names,
            begun=begun,
            changed=self._desk.note_cancelled,
            find_position=self._desk.position,
        )
        with self._desk.changed:
            self._refuse_if_not_running()
            self._desk.enter(ticket)
        return ticket

    def stats(self) -> EngineStats:
        """Numbers of this moment."""
        desk = self._desk
        with desk.changed:
            counts, meter = desk.meter.counts, desk.meter
            return EngineStats(
                queued=len(desk.queue),
                running=len(self._batcher.rows),
                drawing=sum(row.order.is_blocked for row in desk.live),
                free_slots=self._batcher.num_free,
                finished=counts["finished"],
                cancelled=counts["cancelled"],
                failed=counts["failed"],
                prompt_tokens=self._batcher.num_read,
                new_tokens=self._batcher.num_chosen,
                pictures=counts["pictures"],
                steps=counts["steps"],
                batch_sizes=tuple(map(int, meter.batch_sizes)),
                first_token_seconds=tuple(meter.first_token_seconds),
                picture_seconds=tuple(meter.picture_seconds),
                cached_prefixes=len(self._prefixes),
                prefix_hits=self._prefixes.num_hits,
                reused_tokens=self._prefixes.num_tokens,
                cached_tiles=len(self._tiles),
                tile_hits=self._tiles.num_hits,
                error=None if self._error is None else repr(self._error),
            )

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests, and end.

        Args:
            drain: answer those that were taken; else they end with an error.
        """
        with self._desk.changed:
            self._closing = True
            if not drain:
                self._stopped = True
                self._desk.end_all(RequestError("The engine was closed. Ask one that runs."))
            self._desk.changed.notify_all()
        for thread in self._threads:
            thread.join()
        unpack_linear(self.model)

    def _refuse_if_not_running(self) -> None:
        if self._error is not None:
            raise RequestError(f"The engine has stopped: {self._error!r}. Start it again.")
        if self._closing:
            raise RequestError("The engine takes no more requests. Ask one that runs.")

    def _guard(self, run: Callable[[], None]) -> None:
        """Let nothing that goes wrong leave a caller waiting."""
        torch.set_num_threads(torch.get_num_threads())  # a new thread has its own number
        try:
            run()
        except Exception as error:  # noqa: BLE001  # every caller is told
            with self._desk.changed:
                self._error, self._stopped = error, True
                self._desk.end_all(error)
                self._desk.changed.notify_all()

    def _answer(self) -> None:
        """The loop of the language model."""
        batcher, desk = self._batcher, self._desk
        while self._wait_for_work():
            batcher.remove(set(desk.leave_cancelled()))
            desk.leave_late()
            self._cut_late()
            for ticket in self._embed(desk.admit(batcher.num_free)):
                batcher.add(ticket.row)
            if batcher.rows:
                desk.meter.count_step(len(batcher.rows))
                for row, events in batcher.step():
                    desk.deliver(row, events)
            self._deliver_pictures()
        with desk.changed:
            self._stopped = True
            desk.changed.notify_all()

    def _wait_for_work(self) -> bool:
        desk = self._desk
        with desk.changed:
            if len(self._pictures):
                desk.changed.notify_all()
            while not (desk.queue or self._batcher.rows or self._drawn or desk.has_cancelled):
                if self._stopped or (self._closing and not desk.live):
                    return False
                desk.changed.wait()
            return not self._stopped

    def _cut_late(self) -> None:
        live = self._desk.live
        late = [row for row in self._batcher.rows if row in live and self._desk.is_late(live[row])]
        self._batcher.remove(set(late))
        for row in late:
            self._desk.deliver(row, row.order.add(row.finish("length")))

    def _embed(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Embed prompts together; if that fails, each alone, so that the one at fault is found."""
        if not tickets:
            return []
        try:
            with torch.inference_mode():
                prompts = embed_prompts(
                    self.model,
                    [ticket.sample for ticket in tickets],
                    self.device,
                    self.max_tiles,
                    cache=self._tiles,
                    names=[ticket.names for ticket in tickets],
                )
        except Exception as error:  # noqa: BLE001  # it ends this request; the others go on
            if len(tickets) > 1:
                return [done for ticket in tickets for done in self._embed([ticket])]
            self._desk.end(tickets[0], error)
            return []
        for ticket, prompt_LD in zip(tickets, prompts, strict=True):
            ticket.row.prompt_LD = prompt_LD
        return list(tickets)

    def _deliver_pictures(self) -> None:
        meter = self._desk.meter
        while self._drawn:
            job = self._drawn.popleft()
            if job.made is None:
                self._batcher.remove({job.row})
                self._desk.deliver(job.row, [])
            if job.made is None or job.row not in self._desk.live:
                continue
            meter.counts["pictures"] += 1
            meter.picture_seconds.append(time.monotonic() - job.begun)
            self._desk.deliver(job.row, job.row.order.fill_gap(job.number, job.made))

    def _draw(self) -> None:
        """The loop of the image decoder."""
        changed = self._desk.changed
        while True:
            with changed:
                while not (self._stopped or (batch := self._pictures.take())):
                    changed.wait()
                if self._stopped:
                    return
            try:
                self._pictures.draw(batch)
            except Exception as error:  # noqa: BLE001  # it ends these requests; the others go on
                for job in batch:
                    job.row.error = error
            with changed:
                self._drawn.extend(batch)
                changed.notify_all()
