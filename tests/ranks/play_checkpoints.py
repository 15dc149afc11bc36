"""What ranks save and read back, and what they say when that fails."""

from __future__ import annotations

import hashlib
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tiny_training import make_trainer, metrics
from torch import Tensor
from torch.distributed.tensor import DTensor

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.fit import named_tensors
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import CheckpointError
from mllm_npu.train.optimizer import optimizer_tensors

CPU = torch.device("cpu")


def save_again_and_again(folder: Path, *, again: bool) -> None:
    """Save until somebody ends this process; every number of a checkpoint is its step."""
    checkpoints = Checkpoints(folder=folder, keep_last=1)
    for step in count(1):
        tensors = {f"t{number}": torch.full((100, 10), float(step)) for number in range(20)}
        checkpoints.save(step, tensors=tensors, values={"step": step})
        if again:
            checkpoints.save(step, tensors=tensors, values={"step": step})


def fill_a_small_disk(folder: Path, *, disk: Path, asynchronous: bool) -> dict[str, Any]:
    """Rank 1 has more than fits; every rank hears of it, and what was there before stays."""
    mesh = Mesh.start(CPU, timeout_seconds=30)
    checkpoints = Checkpoints(folder=disk, mesh=mesh, asynchronous=asynchronous)
    own = f"of {mesh.rank}"
    checkpoints.save(1, tensors={own: torch.full((10,), 1.0 + mesh.rank)}, values={})
    checkpoints.wait()
    error = ""
    try:
        checkpoints.save(2, tensors={own: torch.ones(1 + mesh.rank * 1_000_000)}, values={})
        checkpoints.wait()
    except CheckpointError as told:
        error = str(told)
    mesh.barrier()
    left = sorted(path.name for path in disk.iterdir())
    back = {own: torch.zeros(10)}
    checkpoints.load(1, back)
    checkpoints.save(3, tensors={own: torch.ones(10)}, values={})
    checkpoints.wait()
    return {
        "error": error,
        "left": left,
        "back": back[own].tolist(),
        "newest": checkpoints.latest_step(),
    }


def write_where_nobody_can(folder: Path) -> list[str]:
    """The folder of the checkpoints lies below a file."""
    mesh = Mesh.start(CPU, timeout_seconds=30)
    (folder / "file").touch()
    errors = []
    for asynchronous in (True, False):
        checkpoints = Checkpoints(
            folder=folder / "file" / "checkpoints", mesh=mesh, asynchronous=asynchronous
        )
        try:
            checkpoints.save(1, tensors={f"of {mesh.rank}": torch.ones(3)}, values={})
            checkpoints.wait()
        except CheckpointError as told:
            errors.append(str(told))
    return errors


def train_and_stop(folder: Path, *, runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Run recipes one after the other; digests of what each ended with."""
    return {
        name: digests_of(folder / name, resume="never", **recipe) for name, recipe in runs.items()
    }


def resume(folder: Path, *, runs: dict[str, dict[str, Any]], steps: int) -> dict[str, Any]:
    """Go on with runs whose checkpoint is of step 2; what came back, and the losses since."""
    found = {}
    for name, recipe in runs.items():
        came_back = digests_of(folder / name, resume="auto", **recipe, max_steps=2)
        trainer = make_trainer(folder / name, **recipe, max_steps=steps)
        assert trainer.run(resume="auto")
        losses = [(line["step"], line["loss"]) for line in metrics(folder / name)]
        found[name] = {"came back": came_back, "losses": losses}
    return found


def digests_of(folder: Path, *, resume: Any, **recipe: Any) -> dict[str, str]:
    """A digest of every weight, buffer, moment and average of a run that was begun or resumed."""
    trainer = make_trainer(folder, **recipe)
    if resume != "never":
        with torch.no_grad():
            for parameter in trainer.update.parameters.values():
                parameter.add_(1.0)
    assert trainer.run(resume=resume)
    update = trainer.update
    assert update.ema is not None
    tensors = {
        **named_tensors(update.objective),
        **optimizer_tensors(update.optimizer),
        **{f"ema/{name}": average for name, average in update.ema.averages.items()},
    }
    counted = {"ema updates": str(update.ema.num_updates), "step": str(trainer.step)}
    position = {"packs": str(trainer.batches.state_dict()["consumed"])}
    return {name: digest(tensor) for name, tensor in tensors.items()} | counted | position


@torch.no_grad()
def digest(tensor: Tensor) -> str:
    """Equal for equal bits, however the tensor is spread over ranks."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return hashlib.sha256(whole.contiguous().numpy().tobytes()).hexdigest()[:16]
