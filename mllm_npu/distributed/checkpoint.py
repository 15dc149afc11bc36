"""Training states on disk: a folder per step, whole or not there, safetensors and JSON only.

Layout::

    <folder>/latest                     name of the newest whole checkpoint
    <folder>/step-00000300/state.json   plain values
                           config.yaml  configuration of the run, for the reader
                           index.json   where every piece of every tensor lies
                           shard-*.safetensors, one per rank

Every rank writes its own shards while training goes on; one rank puts the finished folder in place.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from mllm_npu.distributed.checkpoint_files import (
    INDEX_FILE,
    ShardReader,
    ShardWriter,
    StoredShape,
    stored_shapes,
    sync_to_disk,
)
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import CheckpointError

FORMAT = 2
_OUTDATED = ".outdated"
MAX_NAMED = 4


class Checkpoints:
    """Saves and finds the checkpoints of one run; every rank has one and calls it in step.

    Args:
        folder: where the run keeps them; made at the first save.
        mesh: the ranks; None: this process alone.
        keep_last: number of newest checkpoints that stay on disk.
        keep_every: checkpoints of every so many updates stay as well; None keeps no others.
        asynchronous: write while training goes on; memory for a copy of the state is needed then.
        config: configuration of the run as YAML; kept in every checkpoint.

    Raises:
        CheckpointError: fewer than one checkpoint was to be kept.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        mesh: Mesh | None = None,
        keep_last: int = 2,
        keep_every: int | None = None,
        asynchronous: bool = True,
        config: str = "",
    ) -> None:
        if keep_last < 1 or (keep_every is not None and keep_every < 1):
            raise CheckpointError(
                f"keep_last={keep_last}, keep_every={keep_every} were asked for; keep at least 1, "
                "and every so many updates from 1 on, or null."
            )
        self.folder = Path(folder)
        self.mesh = mesh or Mesh.single()
        self.keep_last = keep_last
        self.keep_every = keep_every
        self.asynchronous = asynchronous
        self.config = config
        # Exchanges of a save in progress must not meet those of training.
        many = self.mesh.world_size > 1
        self._group = dist.new_group(backend="gloo") if many else None
        self._pending: Future[Any] | None = None
        self._pending_step = 0

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, None where there is none; equal on all ranks.

        Raises:
            CheckpointError: the file ``latest`` names a checkpoint that is not there.
        """
        pointer = self.folder / "latest"
        step, lacking = -1, ""
        if self.mesh.is_main and pointer.is_file():
            lacking = pointer.read_text(encoding="utf-8").strip()
            if lacking in self._whole_folders():
                step, lacking = int(lacking.removeprefix("step-")), ""
        step = self.mesh.from_main(-2 if lacking else step)
        if step == -2:
            raise CheckpointError(
                f"{pointer} names {lacking!r}, which is not there; found {self._whole_folders()}. "
                f"Write one of these names into {pointer}, or start in another folder."
            )
        return None if step < 0 else step

    def save(self, step: int, *, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint; ``wait`` or the next ``save`` waits for its end.

        Args:
            step: optimizer steps done.
            tensors: by name; sharded ones are written by the ranks that hold their rows.
            values: plain values for ``state.json``; those of the main rank count.

        Raises:
            CheckpointError: this one or the one in progress cannot be written; the checkpoints
                before stay as they are.
        """
        self.wait()
        partial = self._folder_of(step).with_name(self._folder_of(step).name + ".partial")
        if self.mesh.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        self.mesh.barrier()
        state = {"format": FORMAT, "step": step, "values": values}
        writer = ShardWriter(partial, commit=lambda: self._commit(partial, step, state))
        self._pending_step = step
        # Safetensors takes no other order of elements, such as channels last.
        state_dict = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if self._group is None:
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        if self.asynchronous:
            with self.mesh.progress.inside("copy of the state for a checkpoint"):
                begun = dcp.async_save(
                    state_dict,
                    storage_writer=writer,
                    process_group=self._group,
                    no_dist=self._group is None,
                )
            assert isinstance(begun, Future)
            self._pending = begun
            return
        self._pending = Future()
        try:
            dcp.save(
                state_dict,
                storage_writer=writer,
                process_group=self._group,
                no_dist=self._group is None,
            )
            self._pending.set_result(None)
        except (CheckpointException, OSError) as error:
            self._pending.set_exception(error)
        self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint in progress is on the disk.

        Raises:
            CheckpointError: it could not be written; the checkpoints before it stay as they are.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            with self.mesh.progress.inside(f"end of the checkpoint of step {self._pending_step}"):
                pending.result()
        except (CheckpointException, OSError, RuntimeError) as error:
            final = self._folder_of(self._pending_step)
            if self.mesh.is_main:
                shutil.rmtree(final.with_name(final.name + ".partial"), ignore_errors=True)
            raise CheckpointError(
                f"A checkpoint of step {self._pending_step} was to be written to {final}: "
                f"{_reason(error)}. The one before it is still valid; make room or allow writing, "
                "then resume."
            ) from error

    def values(self, step: int) -> Mapping[str, Any]:
        """Plain values of a checkpoint.

        Raises:
            CheckpointError: there is none of that step, or it cannot be read.
        """
        folder = self._require(step)
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            values, found = state["values"], state["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(folder, error) from error
        if found != FORMAT:
            raise CheckpointError(
                f"{folder} has format {found}, this version reads {FORMAT}. "
                "Resume with the version that wrote it (see its state.json)."
            )
        return values

    def shapes(self, step: int) -> dict[str, StoredShape]:
        """Names, shapes and dtypes of the tensors of a checkpoint.

        Raises:
            CheckpointError: there is none of that step, or it cannot be read.
        """
        folder = self._require(step)
        try:
            return stored_shapes(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(folder, error) from error

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors from a checkpoint, in place; each rank reads the rows it holds.

        Args:
            step: of the checkpoint.
            tensors: by name, of the stored shapes (see ``shapes``).

        Raises:
            CheckpointError: it cannot be read.
        """
        folder = self._require(step)
        if self._group is None:
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            dcp.load(
                dict(tensors),
                storage_reader=ShardReader(folder, tensors),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except (Exception, CheckpointException) as error:
            # The readers have error trees of their own; whichever it is, the folder is of no use.
            raise self._unreadable(folder, error) from error

    def _require(self, step: int) -> Path:
        folder = self._folder_of(step)
        for place in (folder, _outdated(folder)):
            if place.is_dir():
                return place
        raise CheckpointError(
            f"A checkpoint of step {step} was asked for in {self.folder}; found "
            f"{self._whole_folders()}. Choose one of these or start anew."
        )

    def _unreadable(self, folder: Path, error: BaseException) -> CheckpointError:
        others = [name for name in self._whole_folders() if name != folder.name]
        advice = f"write the name of another one into {self.folder / 'latest'}: {others}"
        return CheckpointError(
            f"{folder} cannot be read: {_reason(error)}. Delete it and "
            f"{advice if others else 'begin again, there is no other'}."
        )

    def _commit(self, partial: Path, step: int, state: Mapping[str, Any]) -> None:
        """Put a folder that is written in its place, point to it, drop those too old."""
        files = {"config.yaml": self.config, "state.json": json.dumps(state, indent=1)}
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync_to_disk(path)
        final = self._folder_of(step)
        if final.exists():
            # Not deleted yet: ``latest`` may name it, and this process may end between two lines.
            shutil.rmtree(_outdated(final), ignore_errors=True)
            final.rename(_outdated(final))
        partial.rename(final)
        sync_to_disk(self.folder)
        pointer = self.folder / "latest.partial"
        pointer.write_text(final.name + "\n", encoding="utf-8")
        sync_to_disk(pointer)
        pointer.replace(self.folder / "latest")
        sync_to_disk(self.folder)
        shutil.rmtree(_outdated(final), ignore_errors=True)
        self._drop_old(final.name)

    def _folder_of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _whole_folders(self) -> list[str]:
        found = (path for path in self.folder.glob("step-*") if (path / INDEX_FILE).is_file())
        names = {path.name.removesuffix(_OUTDATED) for path in found}
        return sorted(name for name in names if name.removeprefix("step-").isdigit())

    def _drop_old(self, newest: str) -> None:
        """Drop what nobody asked to keep; the newest may have a lower number after a step back."""
        others = [name for name in self._whole_folders() if name != newest]
        for name in others[: max(0, len(others) + 1 - self.keep_last)]:
            if self.keep_every is None or int(name.removeprefix("step-")) % self.keep_every:
                for folder in (self.folder / name, _outdated(self.folder / name)):
                    shutil.rmtree(folder, ignore_errors=True)


def _outdated(folder: Path) -> Path:
    """Where a checkpoint lies while another takes its place."""
    return folder.with_name(folder.name + _OUTDATED)


def _reason(error: BaseException) -> str:
    """What went wrong on which rank, in one line."""
    failures = getattr(error, "failures", None)
    if failures:
        told = [f"rank {rank}: {failure[0]}" for rank, failure in sorted(failures.items())]
        return f"{'; '.join(told[:MAX_NAMED])}{'; ...' if len(told) > MAX_NAMED else ''}"
    return f"{type(error).__name__}: {error}"
