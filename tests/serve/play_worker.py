"""A worker that makes replies of what the request tells it to do; run as a process of its own.

    python tests/serve/play_worker.py --port 40000 --controller http://127.0.0.1:10000 --name a

A request's ``play`` says how it goes: ``chunks``, ``pause`` (seconds before each), ``die_at`` (the
chunk before which the process kills itself), ``status``, ``media_type``, ``length`` (tells it),
``wait`` (seconds before the reply begins).
"""

import argparse
import asyncio
import json
import os
import signal
import sys

import httpx
import uvicorn

from mllm_npu.serve.protocol import (
    HEARTBEAT_PATH,
    REGISTER_PATH,
    UNREGISTER_PATH,
    Farewell,
    Heartbeat,
    ModelCard,
    Registration,
    WorkerLimits,
    bearer,
)

LIMITS = WorkerLimits(
    max_body_bytes=2**20, max_images=1, max_pixels=2**20, max_new_tokens=9, max_queue=9
)


class PlayWorker:
    """Answers any POST; ``GET /seen`` tells what came, ``POST /play`` changes what it does."""

    def __init__(self, asked):
        self.asked = asked
        self.url = f"http://127.0.0.1:{asked.port}"
        self.seen = {"begun": 0, "done": 0, "left": 0, "headers": {}, "body": ""}
        self.play = {"silent": False, "draining": False, "status": 0}
        self.open = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        if scope["method"] == "GET":
            known = {"/seen": self.seen | {"open": self.open}, "/health": {"status": "ok"}}
            body = json.dumps(known.get(scope["path"], {})).encode()
            if scope["path"] == "/metrics":
                body = f"mllm_npu_queued 0.0\nmllm_npu_running {self.open}.0\n".encode()
            await respond(send, 200, body)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/play":
            self.play |= json.loads(body)
            await respond(send, 200, b"{}")
            return
        self.seen["headers"] = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.seen["path"] = scope["path"]
        self.seen["body"] = body.decode("latin-1")
        await self.answer(body, receive, send)

    async def answer(self, body, receive, send):
        is_json = body.startswith(b"{")
        play = {"chunks": 1, **(json.loads(body).get("play", {}) if is_json else {})}
        status = self.play["status"] or play.get("status", 200)
        self.seen["begun"] += 1
        if status != 200:
            await respond(send, status, json.dumps({"refused_by": self.asked.name}).encode())
            return
        reply = asyncio.ensure_future(self.reply(play, send))
        leaving = asyncio.ensure_future(receive())
        self.open += 1
        await asyncio.wait({reply, leaving}, return_when=asyncio.FIRST_COMPLETED)
        self.open -= 1
        self.seen["done" if reply.done() else "left"] += 1
        for task in (reply, leaving):
            task.cancel()

    async def reply(self, play, send):
        await asyncio.sleep(play.get("wait", 0))
        kind = play.get("media_type", "text/event-stream")
        pieces = [self.piece(number, kind) for number in range(play["chunks"])]
        headers = [(b"content-type", kind.encode()), (b"x-worker", self.asked.name.encode())]
        if play.get("length"):
            headers.append((b"content-length", str(sum(map(len, pieces))).encode()))
        for number, piece in enumerate(pieces):
            await asyncio.sleep(play.get("pause", 0))
            if play.get("die_at") == number:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 0:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def piece(self, number, kind):
        value = json.dumps({"worker": self.asked.name, "number": number}).encode()
        return b"data: " + value + b"\n\n" if kind == "text/event-stream" else value + b"\0"

    async def live(self, receive, send):
        beating = asyncio.ensure_future(self.beat()) if self.asked.controller else None
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if beating:
            beating.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def beat(self):
        headers = {"content-type": "application/json", **bearer(self.asked.token)}
        async with httpx.AsyncClient(
            base_url=self.asked.controller, headers=headers, trust_env=False
        ) as client:
            known, seconds = False, 0.2
            while True:
                try:
                    if not known and not self.play["silent"]:
                        seconds = await self.register(client)
                        known = True
                    if not self.play["silent"]:
                        known = await self.say_alive(client)
                except httpx.HTTPError as error:
                    sys.stderr.write(f"{error}\n")
                    known = False
                await asyncio.sleep(seconds)

    async def register(self, client):
        cards = [ModelCard(id=name, version=self.asked.version) for name in self.asked.models]
        said = Registration(url=self.url, models=cards, limits=LIMITS, software="test")
        reply = await client.post(REGISTER_PATH, content=said.model_dump_json())
        reply.raise_for_status()
        return reply.json()["heartbeat_seconds"]

    async def say_alive(self, client):
        said = Heartbeat(
            url=self.url,
            queued=0,
            running=self.open,
            models=self.asked.models,
            draining=self.play["draining"],
        )
        reply = await client.post(HEARTBEAT_PATH, content=said.model_dump_json())
        if self.play.get("farewell"):
            await client.post(UNREGISTER_PATH, content=Farewell(url=self.url).model_dump_json())
            self.play["silent"] = True
        return reply.json()["known"]


async def respond(send, status, body):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--controller")
    parser.add_argument("--token", default=os.environ.get("MLLM_NPU_WORKER_TOKEN"))
    parser.add_argument("--name", default="a")
    parser.add_argument("--models", nargs="+", default=["tiny"])
    parser.add_argument("--version", default="1")
    asked, _ = parser.parse_known_args()
    worker = PlayWorker(asked)
    uvicorn.run(worker, host="127.0.0.1", port=asked.port, log_level="warning", lifespan="on")


if __name__ == "__main__":
    main()
