"""Training states on disk: a folder per step, whole or not there, safetensors and JSON only.

Layout::

    <folder>/latest                     name of the newest whole checkpoint
    <folder>/step-00000300/state.json   plain values
                           config.yaml         configuration of the run, for the reader
                           <group>.safetensors
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllm_npu.errors import CheckpointError

FORMAT = 1
MAX_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a checkpoint holds.

    Args:
        step: optimizer steps done.
        tensors: groups of named tensors, on the host.
        values: plain values (numbers, strings, lists, dictionaries).
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]

    def group(self, name: str) -> Mapping[str, Tensor]:
        """One group of tensors.

        Raises:
            CheckpointError: the checkpoint has no such group.
        """
        if name not in self.tensors:
            raise CheckpointError(
                f"The checkpoint of step {self.step} was asked for its {name}; it holds only "
                f"{sorted(self.tensors)}. Resume with the settings it was written with."
            )
        return self.tensors[name]


class Checkpoints:
    """Saves and finds the checkpoints of one run.

    Args:
        folder: where the run keeps them; made at the first save.
        keep_last: number of newest checkpoints that stay on disk.
        config: configuration of the run as YAML; kept in every checkpoint.
    """

    def __init__(self, *, folder: str | Path, keep_last: int = 2, config: str = "") -> None:
        if keep_last < 1:
            raise CheckpointError(f"keep_last={keep_last} was asked for; keep at least 1.")
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.config = config

    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, None where there is none.

        Raises:
            CheckpointError: the file ``latest`` names a checkpoint that is not there.
        """
        pointer = self.folder / "latest"
        if not pointer.is_file():
            return None
        name = pointer.read_text(encoding="utf-8").strip()
        if not (self.folder / name).is_dir() or not name.startswith("step-"):
            raise CheckpointError(
                f"{pointer} names {name!r}, which is not there; found {self._whole_folders()}. "
                f"Write one of these names into {pointer}, or start in another folder."
            )
        return int(name.removeprefix("step-"))

    def save(
        self,
        step: int,
        *,
        tensors: Mapping[str, Mapping[str, Tensor]],
        values: Mapping[str, Any],
    ) -> Path:
        """Write one checkpoint under a temporary name, rename it, then drop those too old.

        Args:
            step: optimizer steps done.
            tensors: groups of named tensors, one file each.
            values: plain values for ``state.json``.

        Raises:
            CheckpointError: it cannot be written; the checkpoints before it stay as they are.
        """
        final = self.folder / f"step-{step:08d}"
        partial = final.with_name(final.name + ".partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self._write(partial, step, tensors, values)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            _sync(self.folder)
            self._point_to(final.name)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"A checkpoint of step {step} was to be written to {final}: {error}. "
                "The one before it is still valid; make room or allow writing, then resume."
            ) from error
        self._drop_old()
        return final

    def load(self, step: int | None = None) -> Snapshot:
        """Read one checkpoint, the newest where no step is named.

        Raises:
            CheckpointError: there is none, or a file of it cannot be read.
        """
        wanted = self.latest_step() if step is None else step
        folder = self.folder / f"step-{wanted if wanted is not None else 0:08d}"
        if wanted is None or not folder.is_dir():
            raise CheckpointError(
                f"A checkpoint of step {step if step is not None else 'latest'} was asked for in "
                f"{self.folder}; found {self._whole_folders()}. Choose one of these or start anew."
            )
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            tensors = {name: load_file(folder / f"{name}.safetensors") for name in state["groups"]}
            values, found = state["values"], state["format"]
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
            others = [name for name in self._whole_folders() if name != folder.name]
            advice = f"write the name of another one into {self.folder / 'latest'}: {others}"
            raise CheckpointError(
                f"{folder} cannot be read: {type(error).__name__}: {error}. Delete it and "
                f"{advice if others else 'begin again, there is no other'}."
            ) from error
        if found != FORMAT:
            raise CheckpointError(
                f"{folder} has format {found}, this version reads {FORMAT}. "
                "Resume with the version that wrote it (see its state.json)."
            )
        return Snapshot(step=wanted, tensors=tensors, values=values)

    def _write(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        values: Mapping[str, Any],
    ) -> None:
        for group, members in tensors.items():
            save_file(
                {k: _own_host_copy(v) for k, v in members.items()}, folder / f"{group}.safetensors"
            )
        state = {"format": FORMAT, "step": step, "groups": sorted(tensors), "values": values}
        files = {"config.yaml": self.config, "state.json": json.dumps(state, indent=1)}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in (*folder.iterdir(), folder):
            _sync(path)

    def _point_to(self, name: str) -> None:
        partial = self.folder / "latest.partial"
        partial.write_text(name + "\n", encoding="utf-8")
        _sync(partial)
        partial.replace(self.folder / "latest")
        _sync(self.folder)

    def _whole_folders(self) -> list[str]:
        found = self.folder.glob("step-*")
        return sorted(path.name for path in found if path.name.removeprefix("step-").isdigit())

    def _drop_old(self) -> None:
        for name in self._whole_folders()[: -self.keep_last]:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; what has several names is under its first."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def load_module_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the module in place; nothing is copied unless all fit.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = module_tensors(module)
    check_fit("the model", expected=own, found=tensors)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def check_fit(what: str, *, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of a run with those of a checkpoint.

    Args:
        what: whose tensors they are, for the message.
        expected: tensors of this run.
        found: tensors of the checkpoint.

    Raises:
        CheckpointError: they differ; the message names what.
    """
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    differences = [
        f"{title}: {_name_some(names)}"
        for title, names in (
            ("missing in the checkpoint", [name for name in expected if name not in found]),
            ("only in the checkpoint", [name for name in found if name not in expected]),
            ("of another shape", shapes),
        )
        if names
    ]
    if differences:
        raise CheckpointError(
            f"The checkpoint does not fit {what} of this run. {'; '.join(differences)}. "
            "Resume with the configuration it was written with, or start in another folder."
        )


def _name_some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + rest


def _own_host_copy(tensor: Tensor) -> Tensor:
    # safetensors refuses tensors that share memory, so a view of something larger is copied out.
    host = tensor.detach().cpu().contiguous()
    is_view = host.untyped_storage().nbytes() != host.numel() * host.element_size()
    return host.clone() if is_view else host


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
