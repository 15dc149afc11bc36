"""Small worlds, and an engine that knows every answer."""

import json
from dataclasses import dataclass, field
from random import Random

import pytest
import torch
from PIL import Image

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.data.worlds.scenes import make_scenes
from mllm_npu.evaluate.question import answer_text, cut_answer
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.evaluate.world_rows import read_rows
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import DrawnImage, ask


@pytest.fixture(scope="session")
def digits_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.1)
    return folder


@pytest.fixture(scope="session")
def scenes_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, scale=0.05)
    return folder


def make_reply(text="", pictures=()):
    return Reply(
        text=text,
        pictures=tuple(pictures),
        features=(torch.zeros(1),) * len(pictures),
        finish_reason="stop",
        num_prompt_tokens=1,
        num_new_tokens=1,
    )


CPU = torch.device("cpu")


@dataclass
class Oracle:
    """Stands for an engine: replies to a conversation by its key, or fails to where told.

    Args:
        answer: (conversation, options) -> Reply.
    """

    answer: object
    device: torch.device = CPU
    asked: list = field(default_factory=list)
    redraws: list = field(default_factory=list)
    can_draw: bool = True

    def reply_many(self, conversations, options, progress=None):
        self.asked.extend(zip(conversations, options, strict=True))
        for _ in conversations:
            if progress is not None:
                progress(1)
        return [
            self.answer(conversation, wish)
            for conversation, wish in zip(conversations, options, strict=True)
        ]

    def replies(self, conversations, options):
        yield from enumerate(self.reply_many(conversations, options))

    def redraw(self, pictures, options):
        self.redraws.append((len(pictures), options.guidance))
        return list(pictures)


@pytest.fixture(scope="session")
def all_right(digits_world, scenes_world):
    """Engines that know every answer of a world, by the world's name."""
    return lambda name, mistakes=(): Oracle(
        KnowsRows({"digits": digits_world, "scenes": scenes_world}[name], mistakes)
    )


class EchoTask(Task):
    """Asks for the words it was given."""

    name = "echo"
    title = "Says it again"
    citation = "none"

    def __init__(self, answers):
        self.answers = answers

    def examples(self):
        return [make_example(answer, number) for number, answer in enumerate(self.answers)]

    def score(self, example, reply):
        return float(reply.text == example.answer)


def make_example(answer, number=0, **changes):
    values = {
        "name": f"e{number}",
        "conversation": ask(f"Say {answer}", [Image.new("RGB", (2, 2), "red")]),
        "answer": answer,
        "options": GenerationOptions(seed=number),
    }
    return Example(**{**values, **changes})


def make_record(answer, said, number=0, pictures=(), **changes):
    return Record(
        example=make_example(answer, number, **changes),
        reply=make_reply(said, pictures),
        understood=said,
        score=float(answer == said),
    )


def make_result(*pairs):
    records = [make_record(answer, said, number) for number, (answer, said) in enumerate(pairs)]
    return TaskResult(task=EchoTask([]), records=tuple(records))


def noise_picture(seed, size=(16, 16)):
    return Image.frombytes("RGB", size, Random(seed).randbytes(3 * size[0] * size[1]))


class KnowsRows:
    """Replies with the right text or picture of every row of a world, by its key.

    Args:
        world: folder of a world.
        mistakes: keys that get a wrong reply.
    """

    def __init__(self, world, mistakes=()):
        self.right = {}
        self.mistakes = set(mistakes)
        for shard in sorted(world.glob("*/*.tar")):
            kind, split = shard.parent.name, shard.name.split("-")[0]
            if split != "train":
                task = TASKS.get(kind)
                for row in read_rows(world, kind, split) if task else ():
                    self.right[row.key] = cut_answer(task.to_conversation(row, Random(0)))[1]

    def __call__(self, conversation, options):
        if conversation.key in self.mistakes:
            return make_reply("nonsense")
        answer = self.right[conversation.key]
        pictures = [part.picture for part in answer if isinstance(part, DrawnImage)]
        return make_reply(answer_text(answer), pictures)


TASKS = {
    "instruction": Instruction(),
    "unseen": Instruction(),
    "question": Instruction(),
    "draw": Instruction(),
    "ocr": Ocr(),
    "edit": Edit(),
    "caption": Caption(draw_share=0.0, read_prompts=["Describe."], chat=True),
}


@pytest.fixture(scope="session")
def write_evaluation():
    """Writes what an evaluation leaves: rows of (task, example, score), and what lines have beside.

    ``each`` gives fields by task and example.
    """

    def write(folder, *rows, model=None, figures=None, each=lambda task, example: {}, **changes):
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for task, example, score in rows:
            said = {"question": ["Which?"], "answer": "a", "reply": "r", "understood": "r"}
            values = {"task": task, "example": example, "score": score, "num_pictures": 0, **said}
            lines.append(json.dumps({**values, **changes, **each(task, example)}) + "\n")
        (folder / "records.jsonl").write_text("".join(lines))
        report = {"figures": figures or {}, **({"model": model} if model else {})}
        (folder / "report.json").write_text(json.dumps(report))

    return write


@pytest.fixture(scope="session")
def fakes():
    """Everything above, as conftest files cannot be imported."""
    from types import SimpleNamespace

    return SimpleNamespace(**globals())
