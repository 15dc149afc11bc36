"""Workers for the page: a real server per model, whose replies follow from the question.

    python tests/serve/page/page_worker.py --controller URL --port 40000 --ports 40001

What the last question begins with says how it goes; see ``SCRIPTS``.
"""

import argparse
import asyncio
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

from mllm_npu.errors import BusyError, RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text
from mllm_npu.processing.grounding import Box
from mllm_npu.serve.app import make_service
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.worker_server import WorkerServer


def _load_scripted():
    path = Path(__file__).parents[1] / "scripted.py"
    spec = importlib.util.spec_from_file_location("scripted", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scripted = _load_scripted()

MODELS = ("alpha", "beta")
SLOW_PIECES = 600
"""More than a test waits for."""
MARKUP = "<b>bold</b> <img src=x onerror='window.bad=1'> <script>window.bad=2</script>\n\n"
MARKUP += "**strong** `a<b>c` ![p](http://192.0.2.1/p.png) [link](http://192.0.2.1/)\n"


def say(text, *more, **end):
    return [TextDelta(text=text), *more, scripted.finished(**end)]


def slowly(number):
    pieces = [event for n in range(number) for event in (0.1, TextDelta(text=f"w{n} "))]
    return [*pieces, scripted.finished()]


def draw(conversation, options):
    seed = options.seed or 0
    return scripted.drawn(((37 * seed) % 256, 90, 200), size=(16, 16))


SCRIPTS = {
    "slow": lambda *_: slowly(SLOW_PIECES),
    "wait": lambda *_: [2.5, *say("It was my turn.")],
    "draw": lambda *asked: say("Here it is:", draw(*asked), TextDelta(text=" done."), pictures=1),
    "change": lambda *asked: [0.3, draw(*asked), scripted.finished("length", pictures=1)],
    "where": lambda *_: say(
        "There.",
        boxes=(
            Box(x0=0.1, y0=0.2, x1=0.5, y1=0.9, label="a cat"),
            Box(x0=0.6, y0=0.1, x1=0.9, y1=0.4, label="猫"),
        ),
    ),
    "markup": lambda *_: say(MARKUP),
    "busy": lambda *_: BusyError("Too many wait, as the test wants it."),
    "refuse": lambda *_: RequestError("This <i>cannot</i> be asked."),
    "break": lambda *_: [TextDelta(text="Half"), 0.2, RequestError("It broke in the middle.")],
    "long": lambda *_: say("cut", reason="length"),
    "nothing": lambda *_: [scripted.finished()],
}


def echo(name, conversation, options):
    """What was asked, so that a test sees what came here."""
    parts = [part for turn in conversation.turns for part in turn.parts]
    read = sum(isinstance(part, ReadImage) for part in parts)
    drawn = sum(isinstance(part, DrawnImage) for part in parts)
    texts = [part.text for part in conversation.turns[-1].parts if isinstance(part, Text)]
    counted = f"{len(conversation.turns)} turns, {read} read, {drawn} drawn"
    set_to = f"t={options.temperature:g} p={options.top_p:g} m={options.max_new_tokens}"
    return say(f"{name} heard {' '.join(texts)} | {counted} | {set_to} s={options.seed}")


class Ticket(scripted.ScriptedTicket):
    """Plays a script, and knows whether it still does."""

    has_begun, is_over = False, False

    @property
    def position(self):
        return 0 if self.has_begun else 3

    def _play(self):
        for event in self.script:
            if self.cancelled.wait(event if isinstance(event, float) else 0):
                break
            if not isinstance(event, float):
                self.has_begun = True
                self._events.put(event)
        self.is_over = True
        self._events.put(None)


class Answerer(scripted.ScriptedAnswerer):
    """Answers as the question says, and counts what it is busy with."""

    def __init__(self, name):
        super().__init__(self.script)
        self.name = name
        self.tickets = []

    def script(self, conversation, options):
        texts = [part.text for part in conversation.turns[-1].parts if isinstance(part, Text)]
        word = " ".join(texts).partition(" ")[0].lower().strip(".:,")
        if options.images == "force" and word not in ("slow", "busy", "refuse"):
            pause = 0.3 * ((options.seed or 0) % 4)
            return [pause, draw(conversation, options), scripted.finished("length", pictures=1)]
        if word == "only" and self.name == "alpha":
            return RequestError("I am alpha.")
        if word in SCRIPTS:
            return SCRIPTS[word](conversation, options)
        return echo(self.name, conversation, options)

    def submit(self, conversation, options):
        script = self.script(conversation, options)
        if isinstance(script, BaseException):
            raise script
        self.tickets.append(Ticket(self, script))
        return self.tickets[-1]

    def stats(self):
        running = sum(not ticket.is_over for ticket in self.tickets)
        return SimpleNamespace(queued=0, running=running, error=None)


async def serve(asked):
    services = [
        make_service(
            answerer=Answerer(name),
            card=ModelCard(id=name, draws=True, max_tokens=64),
            defaults=GenerationOptions(max_new_tokens=16),
            limits=Limits(patience_seconds=0.4),
        )
        for name in MODELS
    ]
    servers = [
        WorkerServer(
            service,
            host="127.0.0.1",
            port=port,
            controller=asked.controller,
            token=os.environ.get("MLLM_NPU_WORKER_TOKEN"),
            drain_seconds=1.0,
        )
        for service, port in zip(services, (asked.port, *asked.ports), strict=True)
    ]
    await asyncio.gather(*(server.run() for server in servers))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--controller", required=True)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
