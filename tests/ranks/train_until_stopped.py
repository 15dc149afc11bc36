"""Train on the ranks torchrun has started until a signal comes; then say where each has stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist
from tiny_training import make_trainer


def train_until_stopped(folder: Path) -> int:
    """Step of this rank at its end."""
    trainer = make_trainer(
        folder, parallel={"kind": "fsdp2"}, packs_per_step=2, max_steps=100_000, log_every=5
    )
    assert not trainer.run()
    return trainer.step


if __name__ == "__main__":
    run = Path(sys.argv[1])
    step = train_until_stopped(run)
    (run / f"stopped-{os.environ['RANK']}").write_text(str(step), encoding="utf-8")
    dist.barrier()
    os._exit(0)
