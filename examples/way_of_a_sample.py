"""Follow one training sample from its shard to its loss, and print what it is on the way.

mllm-npu data digits --out data/digits
python examples/way_of_a_sample.py
"""

import argparse
from random import Random

import torch

from mllm_npu.build import build_model, build_part, build_processor
from mllm_npu.config import load_config
from mllm_npu.processing.conversation import ReadImage


def main() -> None:
    """Row, conversation, sample, batch, losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=0, help="of the row in its data set")
    parser.add_argument("overrides", nargs="*", help="settings, such as world_dir=my/digits")
    asked = parser.parse_intermixed_args()
    overrides = ["experiment=digits/mllm", "initialise_from=null", "dataset.num_workers=0"]
    config = load_config("training", [*overrides, *asked.overrides])
    processor = build_processor(config)

    # --8<-- [start:way]
    source = build_part(config.dataset.sources[0])
    row = source.row(asked.number)
    print("row:", row.key, {name: f"{len(data)} bytes" for name, data in row.members.items()})

    talk = source.conversation(asked.number, Random(0))
    parts = [part for turn in talk.turns for part in turn.parts]
    print("conversation:", ["picture" if isinstance(p, ReadImage) else p for p in parts])

    sample = processor.encode(talk)
    learnt = int((sample.labels >= 0).sum())
    print(f"sample: {sample.num_tokens} tokens, {learnt} learnt, {len(sample.tiles)} tiles")

    batches = build_part(config.dataset, processor=processor, rank=0, world_size=1)
    batch = next(batches)
    print(f"batch: {batch.num_samples} samples in {batch.num_tokens} tokens, tiles", end=" ")
    print(f"{batch.tiles.dtype} {list(batch.tiles.shape)}, {batch.num_targets} targets")

    torch.manual_seed(config.seed)
    objective = build_part(config.objective, model=build_model(config))
    losses = objective(batch)
    for name, term in losses.terms.items():
        print(f"loss {name}: {float(term.total.detach() / term.count):.3f}")
    # --8<-- [end:way]


if __name__ == "__main__":
    main()
