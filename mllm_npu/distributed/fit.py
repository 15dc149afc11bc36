"""Compare the tensors of a run with those of a checkpoint before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mllm_npu.distributed.checkpoint_files import StoredShape
from mllm_npu.errors import CheckpointError

MAX_NAMED = 4


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; what has several names is under its first."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def check_fit(
    what: str, *, expected: Mapping[str, Tensor], found: Mapping[str, Tensor | StoredShape]
) -> None:
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
