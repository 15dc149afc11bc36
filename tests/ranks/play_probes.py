"""What probes find on several ranks, and what becomes of training behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_training import EVERYTHING, TinyBatches, make_objective

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.evaluate.live import LiveTasks
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import NUM_QUERIES, TILE_SIZE, tiny_seed
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import ask
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer
from mllm_npu.train.validation import ValidationLoss

CPU = torch.device("cpu")
QUESTIONS = ("Draw a seven.", "Which digit is this?", "What is the sum?")


class Sizes(Task):
    """Scores how long a reply is and how bright its picture, so that any change shows."""

    title = "Length and brightness"
    citation = "none"

    def __init__(self, *, name: str, num: int, draws: bool) -> None:
        self.name = name
        self.num = num
        self.draws = draws

    def examples(self) -> Sequence[Example]:
        return [
            Example(
                name=f"{self.name}-{number}",
                conversation=ask(QUESTIONS[number % len(QUESTIONS)]),
                answer="",
                options=GenerationOptions(
                    max_new_tokens=2 + number,
                    images="force" if self.draws else "forbid",
                    image_steps=1,
                    temperature=1.0,
                    seed=number,
                ),
            )
            for number in range(self.num)
        ]

    def score(self, example: Example, reply: Reply) -> float:
        bright = sum(sum(picture.convert("L").tobytes()) for picture in reply.pictures)
        return len(reply.text) / 100 + bright / 1e5 + sum(map(ord, reply.text)) / 1e5


def make_processor() -> Processor:
    """The one of the model of ``make_live``."""
    tokenizer = train_tokenizer(QUESTIONS * 3, vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=8, num_locations=0))
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(
            grids=["1x1", "2x1"], tile_size=TILE_SIZE, repeat_single_tile=False
        ),
        chat_template=ChatTemplate(user_suffix="\n"),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=NUM_QUERIES,
        max_tokens=120,
    )


def make_live(
    folder: Path,
    *,
    parallel: Mapping[str, Any] | None = None,
    questions: Mapping[str, int] | None = None,
    max_steps: int = 3,
) -> Trainer:
    """A trainer of a model that answers questions after every update, or is not asked any.

    Args:
        folder: of the run.
        parallel: settings of ``Parallel``; one process without any.
        questions: how many, by the name of the task; those of ``draw`` ask for a picture.
        max_steps: of the run.
    """
    recipe = Parallel(**{"kind": "single", "timeout_seconds": 30.0, **(parallel or {})})
    mesh = recipe.start(CPU)
    processor = make_processor()
    torch.manual_seed(0)
    model = tiny_seed()
    model.language_model.resize_vocabulary(len(processor.tokenizer))
    objective = MultimodalObjective(model=model, trainable=EVERYTHING, calibration_batches=4)
    placed = recipe.shape(objective, mesh, CPU)
    placed.settle()
    tasks = make_tasks(questions or {})
    return Trainer(
        placed=placed,
        batches=TinyBatches(mesh),
        optimizer=AdamW(lr=1e-2, eps=1e-3),
        schedule=Constant(),
        recorder=Recorder(folder=folder, progress=False),
        checkpoints=Checkpoints(folder=folder / "checkpoints", mesh=mesh, asynchronous=False),
        probes={"tasks": LiveTasks(every=1, processor=processor, tasks=tasks)} if tasks else {},
        max_steps=max_steps,
        packs_per_step=2,
        log_every=1,
    )


def make_tasks(questions: Mapping[str, int]) -> list[Sizes]:
    """A task per name, of so many questions."""
    return [Sizes(name=name, num=num, draws=name == "draw") for name, num in questions.items()]


def ask_live(folder: Path, *, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Train models that answer between the updates; what each rank finds at the end."""
    found = {}
    for name, settings in runs.items():
        trainer = make_live(folder / name, **settings)
        assert trainer.run()
        probe = trainer.observer.probes.get("tasks")
        found[name] = {
            "values": None if probe is None else probe.measure(trainer.placed).values,
            "training": trainer.objective.training,
        }
    return found


def validate(folder: Path, *, parallels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Held-out losses of the tiny model spread in several ways, one of which reads nothing."""
    found = {}
    for name, settings in parallels.items():
        recipe = Parallel(**{"kind": "single", "timeout_seconds": 30.0, **settings})
        mesh = recipe.start(CPU)
        placed = recipe.shape(make_objective("everything"), mesh, CPU)
        placed.settle()
        probe = ValidationLoss(every=1, batches=TinyBatches(mesh), num_packs=6)
        first, second = probe.measure(placed).values, probe.measure(placed).values
        assert first == second
        found[name] = first
    return found
