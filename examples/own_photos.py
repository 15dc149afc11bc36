"""From a folder of photos with captions to a model that has read them.

    python examples/own_photos.py photos

`photos/beach.jpg` goes with `photos/beach.txt`. The model is tiny and starts from nothing: choose a
real one with `models=`, its tokenizer with `tokenizer.path=` and its weights with
`initialise_from=`.
"""

import argparse
from pathlib import Path

from mllm_npu.config import load_config
from mllm_npu.data.convert.converter import convert
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer
from mllm_npu.train.stages import train_stage


def main() -> None:
    """Convert, make a tokenizer, train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of pictures, each with a .txt beside it")
    parser.add_argument("--steps", type=int, default=300, help="updates")
    parser.add_argument("--out", type=Path, default=Path("runs/own_photos"))
    parser.add_argument("overrides", nargs="*", help="settings, such as models=mllm_tiny")
    asked = parser.parse_intermixed_args()

    made = convert(asked.photos, asked.out / "shards")
    print(f"{made.rows} rows in {made.shards} shards, refused: {made.refused or 'none'}")

    captions = [path.read_text(encoding="utf-8") for path in sorted(asked.photos.glob("*.txt"))]
    tokenizer = train_tokenizer(captions, vocab_size=600)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=16, num_locations=0))
    tokenizer.save_pretrained(asked.out / "tokenizer")

    overrides = [
        *("models=mllm_tiny", "dataset=captions", "objective=comprehension", "world_dir=null"),
        f"dataset.sources.0.shards={asked.out}/shards/*.tar",
        f"tokenizer.path={asked.out}/tokenizer",
        *("dataset.tokens_per_pack=2048", "dataset.num_workers=0"),
        *(f"output_dir={asked.out}", "name=photos", f"train.max_steps={asked.steps}"),
        *asked.overrides,
    ]
    stage = train_stage(load_config("training", overrides), say=print)
    print(f"trained: {stage}. Ask it: mllm-npu generate {stage} --image PICTURE")


if __name__ == "__main__":
    main()
