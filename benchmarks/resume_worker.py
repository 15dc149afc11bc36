"""Train as `mllm-npu train` does, and write down which samples each update has seen.

torchrun --nproc-per-node=2 benchmarks/resume_worker.py JOURNAL OVERRIDE...
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mllm_npu.batch import Batch
from mllm_npu.build import build_trainer
from mllm_npu.config import load_config
from mllm_npu.train.trainer import Trainer


def main() -> None:
    """Go on from the newest checkpoint, to the end."""
    journal, *overrides = sys.argv[1:]
    trainer: Trainer = build_trainer(load_config("training", overrides))
    keep_journal(trainer, Path(journal))
    trainer.run(resume="auto")
    trainer.mesh.barrier()
    # Threads of gloo sometimes end an interpreter that is leaving; all is on the disk by now.
    os._exit(0)


def keep_journal(trainer: Trainer, folder: Path) -> None:
    """Write a line per update before it begins: its number and its samples, of this rank."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"rank{trainer.mesh.rank}-{os.getpid()}.jsonl").open("w", encoding="utf-8")
    following = trainer.feed.next

    def noted(step: int) -> list[Batch]:
        batches = following(step)
        keys = [
            f"{source}/{key}"
            for batch in batches
            for source, key in zip(batch.sources, batch.keys, strict=True)
            if key
        ]
        file.write(json.dumps({"step": step, "world": trainer.mesh.world_size, "keys": keys}))
        file.write("\n")
        file.flush()
        return batches

    trainer.feed.next = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
