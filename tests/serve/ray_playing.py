"""A replica on Ray whose replies a test asks for; replicas import this file by its name.

A question is JSON and says how its reply goes: ``pieces``, ``pause`` (seconds before each),
``picture``, ``fail`` (the engine has failed from then on). A reply begins with who makes it.
"""

import json
import os

from scripted import ScriptedAnswerer, drawn, finished

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.serve.app import make_service
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.ray_replica import ModelReplica
from mllm_npu.serve.worker import parse, read_limits


class PlayAnswerer(ScriptedAnswerer):
    """Tells who it is, and how many of its replies were called off."""

    def __init__(self, who):
        super().__init__(self.play)
        self.who = who

    def submit(self, conversation, options):
        if self.error:
            raise RequestError("The engine has stopped.")
        return super().submit(conversation, options)

    def play(self, conversation, options):
        question = conversation.turns[-1].parts[-1].text
        asked = json.loads(question) if question.startswith("{") else {}
        self.error = "broken" if asked.get("fail") else self.error
        script = [TextDelta(text=json.dumps({**self.who, "cancelled": len(self.cancelled)}))]
        for number in range(asked.get("pieces", 1)):
            script += [float(asked.get("pause", 0)), TextDelta(text=f" {number}")]
        if asked.get("picture"):
            script.append(drawn("blue", (400, 400)))
        return [*script, finished()]


class PlayReplica(ModelReplica):
    """A real replica with an engine that plays; one of a folder with a file ``broken`` fails."""

    def load(self, words):
        asked = parse(words)
        if (asked.model / "broken").exists():
            raise ConfigError(f"{asked.model.name} is broken. Mend it.")
        version = (asked.model / "version").read_text()
        return make_service(
            answerer=PlayAnswerer({"pid": os.getpid(), "version": version, "name": asked.name}),
            card=ModelCard(id=asked.name, version=version, draws=True, max_tokens=64),
            defaults=GenerationOptions(max_new_tokens=16),
            limits=read_limits(asked),
        )
