"""Write a batch that did harm to the run's folder, with the names of its samples."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.errors import DataError
from mllm_npu.train.faults import Fault


def dump_fault(folder: Path, fault: Fault, *, rank: int) -> Path:
    """Write ``step-00000012-rank0/`` with ``about.json`` and a safetensors file per micro-batch.

    Args:
        folder: where faults of the run go.
        fault: what happened; its batches are this rank's.
        rank: of this process.

    Raises:
        DataError: the folder cannot be written.
    """
    target = folder / f"step-{fault.outcome.step:08d}-rank{rank}"
    about = {
        "step": fault.outcome.step,
        "rank": rank,
        "kind": fault.kind,
        "action": fault.action,
        "loss": str(fault.outcome.loss),
        "grad_norm": str(fault.outcome.grad_norm),
        "limit": str(fault.limit),
        "batches": [
            {
                "own_loss": str(loss),
                "keys": batch.keys,
                "sources": batch.sources,
                "tasks": batch.tasks,
                "sequence_ends": batch.sequence_ends,
            }
            for batch, loss in zip(fault.outcome.batches, fault.outcome.own_losses, strict=True)
        ],
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        for number, batch in enumerate(fault.outcome.batches):
            save_file(_tensors(batch), target / f"batch-{number}.safetensors")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"The batch of step {fault.outcome.step} was to be written to {target}: {error}. Make "
            "room on its disk, or set train.faults.most_dumps=0."
        ) from error
    return target


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {entry.name: getattr(batch, entry.name) for entry in dataclasses.fields(batch)}
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
