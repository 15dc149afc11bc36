"""Know the workers: what each answers with, how busy it is, and whether it is still alive.

A worker is forgotten when it has been silent for ``MISSED_HEARTBEATS`` heartbeats, when it says
farewell, or when nothing listens at its address. A worker that is forgotten and alive learns so
from the answer to its next heartbeat, and registers again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mllm_npu.serve.protocol import HEARTBEAT_SECONDS, MISSED_HEARTBEATS, ModelCard

VERSION_MARK = "@"


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A worker as the controller sees it.

    Args:
        url: where it is reached.
        models: what it answers with.
        speed: how many requests it does in the time another does one.
        load: requests that wait or run there, as it last said.
        in_flight: requests that this controller has there now.
        draining: whether it takes nothing new.
        beats: whether it sends heartbeats; one that does not is never taken for dead.
        last_seen: when it last gave a sign of life, on the registry's clock.
        last_picked: when it was last chosen, as a running number.
        lost: set when it is dead, so that whoever waits for it waits no longer.
    """

    url: str
    models: tuple[ModelCard, ...]
    speed: float = 1.0
    load: int = 0
    in_flight: int = 0
    draining: bool = False
    beats: bool = True
    last_seen: float = 0.0
    last_picked: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def busyness(self) -> float:
        """How long a further request would wait, in requests of a worker of speed 1.

        What the worker last said may be old, and what this controller has there is not all of it
        where clients reach the worker directly: the larger of the two counts.
        """
        return (max(self.load, self.in_flight) + 1) / self.speed

    def answers(self, name: str, version: str | None) -> bool:
        """Whether it has a model, of one version or of any."""
        return any(card.id == name and version in (None, card.version) for card in self.models)


class Registry:
    """The workers that are alive.

    Args:
        heartbeat_seconds: how often workers are asked to say that they are.
        default_model: what a request that names no model gets; None takes the model of the worker
            that registered first among those that are here.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        default_model: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.heartbeat_seconds = heartbeat_seconds
        self.num_removed: dict[str, int] = {"silent": 0, "farewell": 0, "unreachable": 0}
        self._default_model = default_model
        self._clock = clock
        self._workers: dict[str, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def register(
        self,
        url: str,
        models: Iterable[ModelCard],
        *,
        speed: float = 1.0,
        beats: bool = True,
    ) -> Worker:
        """Take a worker in, or take what it says anew; what is under way there goes on."""
        url = url.rstrip("/")
        worker = self._workers.get(url) or Worker(url=url, models=())
        worker.models = tuple(models)
        worker.speed, worker.beats, worker.draining = speed, beats, False
        worker.last_seen = self._clock()
        self._workers[url] = worker
        return worker

    def hear(
        self, url: str, *, load: int, models: Iterable[str] | None = None, draining: bool = False
    ) -> bool:
        """Take a heartbeat.

        Args:
            url: of the worker.
            load: requests that wait or run there.
            models: ids it answers with now; None leaves them.
            draining: whether it takes nothing new.

        Returns:
            Whether the worker is known; one that is not has to register, and so has one that
            answers with a model it has not described.
        """
        worker = self._workers.get(url.rstrip("/"))
        if worker is None:
            return False
        worker.load, worker.draining = load, draining
        worker.last_seen = self._clock()
        if models is None:
            return True
        named = set(models)
        worker.models = tuple(card for card in worker.models if card.id in named)
        return named == {card.id for card in worker.models}

    def see(self, worker: Worker) -> None:
        """Take anything a worker sends for a sign of life."""
        worker.last_seen = self._clock()

    def dismiss(self, url: str) -> bool:
        """Forget a worker that says farewell; what it has begun it finishes."""
        return self._forget(url.rstrip("/"), "farewell")

    def miss(self, worker: Worker) -> None:
        """Forget a worker at whose address nothing listens; what it has begun it may finish."""
        if self._workers.get(worker.url) is worker:
            self._forget(worker.url, "unreachable")

    def remove_silent(self) -> list[Worker]:
        """Forget workers that have been silent for too long, and call off what waits for them."""
        oldest = self._clock() - MISSED_HEARTBEATS * self.heartbeat_seconds
        silent = [each for each in self._workers.values() if each.beats and each.last_seen < oldest]
        for worker in silent:
            self._forget(worker.url, "silent")
            worker.lost.set()
        return silent

    def find(self, asked: str | None) -> list[Worker]:
        """Workers that may be given a request, in the order in which they registered.

        Args:
            asked: ``id`` for the newest version of a model, ``id@version`` for that version, None
                for the default model.
        """
        self.remove_silent()
        name, version = self.resolve(asked)
        ready = [worker for worker in self._workers.values() if not worker.draining]
        if name is None:
            return []
        if version is None:
            offered = {
                card.version for worker in ready for card in worker.models if card.id == name
            }
            version = max(offered, key=version_order, default=None)
        return [worker for worker in ready if worker.answers(name, version)]

    def resolve(self, asked: str | None) -> tuple[str | None, str | None]:
        """Name and version of what a request asks for; a version of None is the newest."""
        asked = asked or self._default_model
        if asked is None:
            return next((w.models[0].id for w in self._workers.values() if w.models), None), None
        if any(worker.answers(asked, None) for worker in self._workers.values()):
            return asked, None
        name, mark, version = asked.rpartition(VERSION_MARK)
        return (name, version) if mark and name and version else (asked, None)

    def offered(self) -> dict[str, ModelCard]:
        """What may be named in a request, each with the model it stands for.

        A model of which several versions are here can be asked for by each of them.
        """
        cards: dict[str, dict[str, ModelCard]] = {}
        for worker in self._workers.values():
            if not worker.draining:
                for card in worker.models:
                    cards.setdefault(card.id, {})[card.version] = card
        names: dict[str, ModelCard] = {}
        for name, versions in cards.items():
            newest = max(versions, key=version_order)
            names[name] = versions[newest]
            if len(versions) > 1:
                for version in sorted(versions, key=version_order):
                    names[f"{name}{VERSION_MARK}{version}"] = versions[version]
        return names

    def _forget(self, url: str, reason: str) -> bool:
        known = self._workers.pop(url, None) is not None
        self.num_removed[reason] += known
        return known


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions as people do: 1.9 before 1.10, and 2 before 2.1."""
    parts = re.findall(r"\d+|[^\W\d_]+", version)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
