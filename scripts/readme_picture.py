"""Draw the picture at the top of the READMEs: what a trained digits run reads and draws."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from mllm_npu.data.source import Source
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.inference.engine import Engine, GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_engine
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, ask

if TYPE_CHECKING:
    from PIL import Image

READ_KINDS = {"read": 2, "strip": 3, "sum": 3}
PROMPT = "How would you draw the digit {digit} by hand?"
NUM_DRAWN = 10


def first_questions(world: Path, split: str = "test") -> list[Conversation]:
    """The first questions of each kind on held-out scans; none is picked."""
    chosen: list[Conversation] = []
    left = dict(READ_KINDS)
    for kind, task in (("instruction", Instruction()), ("ocr", Ocr())):
        rows = Source(name=kind, shards=str(world / kind / f"{split}-*.tar"), task=task)
        for number in range(len(rows)):
            asked = rows.row(number).json()["meta"]["kind"]
            if left.get(asked, 0) and (asked == "strip") == (kind == "ocr"):
                left[asked] -= 1
                talk = rows.conversation(number, Random(0))
                chosen.append(Conversation(turns=talk.turns[:1]))
    return chosen


def side_by_side(pictures: list[Image.Image]) -> Any:
    """Grey values of pictures in one row with a gap, as an array [H, W]."""
    import numpy as np  # noqa: PLC0415 only a drawing needs it

    gap = np.full((pictures[0].height, 3), 255, dtype=np.uint8)
    first, *others = [np.asarray(picture.convert("L")) for picture in pictures]
    return np.concatenate([first, *itertools.chain(*((gap, other) for other in others))], axis=1)


def draw(engine: Engine, world: Path, options: GenerationOptions, out: Path) -> None:
    """Ask, let draw, and write the picture."""
    import matplotlib  # noqa: PLC0415 slow

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 slow

    questions = first_questions(world)
    answers = engine.reply_many(questions, options)
    figure = plt.figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    places = left.subplots(4, 2).flatten()
    for place, talk, answer in zip(places, questions, answers, strict=True):
        parts = talk.turns[0].parts
        pictures = [part.picture for part in parts if isinstance(part, ReadImage)]
        words = " ".join(part.text for part in parts if isinstance(part, Text))
        place.imshow(side_by_side(pictures), cmap="gray", vmin=0, vmax=255)
        place.set_title(f"{textwrap.fill(words, 36)}\n→ {answer.text}", fontsize=9, loc="left")
        place.axis("off")
    left.suptitle("reads held-out scans", fontsize=12)
    prompts = [ask(PROMPT.format(digit=digit)) for digit in range(10) for _ in range(NUM_DRAWN)]
    seeds = [GenerationOptions(guidance=options.guidance, image_steps=options.image_steps, seed=n)
             for n in range(len(prompts))]  # fmt: skip
    drawn = engine.reply_many(prompts, seeds)
    for place, reply in zip(right.subplots(10, NUM_DRAWN).flatten(), drawn, strict=True):
        if reply.pictures:
            place.imshow(reply.pictures[0].convert("L"), cmap="gray", vmin=0, vmax=255)
        place.axis("off")
    right.suptitle(f"draws: “{PROMPT.format(digit='…')}”", fontsize=12)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """Write the picture of a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/digits"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/digits.png"))
    parser.add_argument("--guidance", type=float, default=2.0)
    given = parser.parse_args(arguments)
    engine, config = load_engine(find_model_folder(given.run))
    options = GenerationOptions(max_new_tokens=24, guidance=given.guidance)
    draw(engine, Path(config.world_dir), options, given.out)


if __name__ == "__main__":
    main()
