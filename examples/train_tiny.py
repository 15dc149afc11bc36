"""Train a small model that reads and draws handwritten digits, and ask it, from Python.

    python examples/train_tiny.py
    python examples/train_tiny.py --steps 600 --out runs/longer

The three stages that `mllm-npu train experiment=digits` runs, each with fewer steps.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from mllm_npu.build import build_part
from mllm_npu.config import load_config
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.model_folder import load_engine
from mllm_npu.processing.conversation import ask
from mllm_npu.train.stages import train_stage

STAGES = ("vision", "mllm", "decoder")


def main() -> None:
    """Make the data, train stage after stage, ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="updates of each stage")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data set, up to 1")
    parser.add_argument("--out", type=Path, default=Path("runs/train_tiny"))
    parser.add_argument("overrides", nargs="*", help="settings, such as seed=1")
    asked = parser.parse_intermixed_args()

    world = asked.out / "data"
    make_digits(world, scale=asked.scale)
    settings = (f"world_dir={world}", f"output_dir={asked.out}", f"train.max_steps={asked.steps}")
    for stage in STAGES:
        overrides = [f"experiment=digits/{stage}", *settings, *asked.overrides]
        folder = train_stage(load_config("training", overrides), say=print)

    engine, config = load_engine(folder / "model")
    options = build_part(config.generation)
    seven = Image.open(Path(__file__).parents[1] / "demo" / "seven.png")
    print("It reads:", engine.reply(ask("Which digit is this?", [seven]), options).text)
    options = replace(options, images="force")
    [drawn, *_] = engine.reply(ask("Draw a seven."), options).pictures
    drawn.save(asked.out / "seven.png")
    print("It draws:", asked.out / "seven.png")


if __name__ == "__main__":
    main()
