"""A service on a port: announced to its controller, and brought to an end in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Sequence

import uvicorn

from mllm_npu import __version__
from mllm_npu.errors import ServingError
from mllm_npu.serve.announcer import Announcer
from mllm_npu.serve.app import build_app
from mllm_npu.serve.controller_server import listen
from mllm_npu.serve.protocol import Heartbeat, Registration, WorkerLimits
from mllm_npu.serve.security import ApiKeys
from mllm_npu.serve.service import Service

DRAIN_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often the engine is looked at."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger(__name__)


def make_announcer(service: Service, *, controller: str, url: str, token: str | None) -> Announcer:
    """What tells the controller about a service."""
    reception, limits = service.reception, service.limits
    registration = Registration(
        url=url,
        models=(service.card,),
        software=__version__,
        limits=WorkerLimits(
            max_body_bytes=limits.max_body_bytes,
            max_images=limits.max_images,
            max_pixels=limits.max_pixels,
            max_new_tokens=limits.max_new_tokens,
            max_queue=limits.max_queue,
        ),
    )

    def beat() -> Heartbeat:
        load = reception.answerer.stats()
        return Heartbeat(
            url=url,
            queued=load.queued,
            running=load.running,
            models=(service.card.id,),
            draining=reception.draining,
        )

    return Announcer(controller=controller, registration=registration, beat=beat, token=token)


class WorkerServer:
    """A service on a port; a signal lets it finish what it has begun.

    The port is taken at once, so that a taken one is told before anything else happens.

    Args:
        service: what is answered.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        keys: of clients; with some the token opens the worker too.
        controller: address of the controller; None: the worker stands alone.
        url: where the controller reaches this worker; None: host and port.
        token: that controller and workers share.
        drain_seconds: to finish what runs.

    Raises:
        ConfigError: the port cannot be had, or a key is too short.
    """

    def __init__(
        self,
        service: Service,
        *,
        host: str,
        port: int,
        keys: Sequence[str] = (),
        controller: str | None = None,
        url: str | None = None,
        token: str | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.service = service
        self.host = host
        self.controller = controller
        self.token = token
        self.drain_seconds = drain_seconds
        self.is_open = not keys
        self.app = build_app(service, keys=ApiKeys([*keys, *([token] if keys and token else [])]))
        self.stopping = asyncio.Event()
        self.ready = threading.Event()
        self.failure: str | None = None
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        near = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        self.url = url or f"http://{near}:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, int(drain_seconds)),
            )
        )

    async def run(self) -> None:
        """Answer until ``stop``, then finish.

        Raises:
            ServingError: the engine has failed.
        """
        with self._socket:
            serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
            while not (self._server.started or serving.done()):
                await asyncio.sleep(0.02)
            self._handle_signals()
            self._tell()
            announcer, telling = self._announce()
            self.ready.set()
            ends = {serving, *map(asyncio.ensure_future, (self.stopping.wait(), self._watch()))}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await self._finish(announcer, telling)
            for end in ends - {serving}:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        if self.failure is not None:
            raise ServingError(f"The engine has failed: {self.failure}. Start the worker again.")

    def stop(self) -> None:
        """Finish what runs, refuse what is new, then end ``run``; in the thread of its loop."""
        if self.stopping.is_set():  # asked twice: at once
            self._server.force_exit = self._server.should_exit = True
        self.stopping.set()

    async def _watch(self) -> None:
        """Ends when the engine has failed for good."""
        while self.failure is None:
            await asyncio.sleep(LOOK_SECONDS)
            self.failure = self.service.reception.answerer.stats().error

    def _handle_signals(self) -> None:
        """In the main thread of a process, SIGTERM and Ctrl-C stop the worker."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)

    def _announce(self) -> tuple[Announcer | None, asyncio.Future[None] | None]:
        if self.controller is None:
            return None, None
        announcer = make_announcer(
            self.service, controller=self.controller, url=self.url, token=self.token
        )
        return announcer, asyncio.ensure_future(announcer.run())

    async def _finish(
        self, announcer: Announcer | None, telling: asyncio.Future[None] | None
    ) -> None:
        reception = self.service.reception
        reception.draining = True
        if announcer is not None and telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await announcer.leave()
        if not await reception.drain(self.drain_seconds):
            _log.warning("%d requests did not end in time and are called off", reception.num_open)
        await asyncio.to_thread(lambda: reception.answerer.close(drain=False))
        self._server.should_exit = True

    def _tell(self) -> None:
        _log.warning("%s answers on http://%s:%d", self.service.card.id, self.host, self.port)
        if self.host not in _LOOPBACK and self.is_open:
            _log.warning(
                "listening on %s without API keys: whoever reaches it may ask. "
                "Give --api-keys, or stay on 127.0.0.1.",
                self.host,
            )
