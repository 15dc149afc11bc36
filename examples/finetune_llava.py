"""Fine-tune a LLaVA of transformers with low-rank updates, and give it back to transformers.

    python examples/finetune_llava.py pretrained/llava-1.5-7b-hf llava.json --images coco

The conversations may be in any format that `mllm-npu data convert` reads. What comes out is a
folder that transformers and vLLM load, the updates folded in. Several devices: torchrun.
"""

import argparse
from pathlib import Path

from mllm_npu.config import load_config
from mllm_npu.data.convert.converter import convert
from mllm_npu.data.convert.source_format import Options
from mllm_npu.train.stages import train_stage
from mllm_npu.zoo.llava_export import export_llava
from mllm_npu.zoo.llava_import import import_llava
from mllm_npu.zoo.train_further import offer_model


def main() -> None:
    """Import, convert, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llava", type=Path, help="folder in the layout of the Hugging Face Hub")
    parser.add_argument("conversations", type=Path, help="file or folder of conversations")
    parser.add_argument("--images", default="", help="folder the paths of pictures begin in")
    parser.add_argument("--steps", type=int, default=1000, help="updates")
    parser.add_argument("--out", type=Path, default=Path("runs/llava_lora"))
    parser.add_argument("overrides", nargs="*", help="settings, such as lora.rank=16")
    asked = parser.parse_intermixed_args()

    model = asked.out / "imported"
    if not model.exists():
        import_llava(asked.llava, model, say=print)
    shards = asked.out / "shards"
    made = convert(asked.conversations, shards, options=Options(images=asked.images))
    print(f"{made.rows} conversations, refused: {made.refused or 'none'}")

    settings = [
        *("experiment=llava/lora", *offer_model(model), "name=lora", f"output_dir={asked.out}"),
        *(f"dataset.sources.0.shards={shards}/*.tar", f"train.max_steps={asked.steps}"),
    ]
    stage = train_stage(load_config("training", [*settings, *asked.overrides]), say=print)
    exported = export_llava(stage / "model", asked.out / "exported", say=print)
    print(f"for transformers and vLLM: {exported}")


if __name__ == "__main__":
    main()
