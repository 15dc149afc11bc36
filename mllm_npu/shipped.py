"""Find the trained models that come with the package, by their names."""

from __future__ import annotations

from pathlib import Path

SHIPPED_FOLDER = Path(__file__).parent / "zoo" / "models"
"""Holds one model folder per name; ``mllm-npu zoo ship`` writes them."""

_DESCRIPTION = "model.yaml"


def shipped_names(folder: Path = SHIPPED_FOLDER) -> list[str]:
    """Names of the models that are there, in order."""
    return sorted(path.parent.name for path in folder.glob(f"*/{_DESCRIPTION}"))


def resolve_run(run: Path) -> Path:
    """The folder that is meant by a run: itself where it is there, else the shipped model.

    Args:
        run: a folder, or the name of a shipped model. Anything that is on the disk comes first.

    Returns:
        A folder; ``run`` as it is where no shipped model is called so.
    """
    if run.exists() or str(run) not in shipped_names():
        return run
    return SHIPPED_FOLDER / run


def results_folder(run: Path) -> Path:
    """Where reports on a run go: into it; those on a shipped model into ``runs``.

    The package's own folder may not be written, and belongs to everybody.
    """
    return run if resolve_run(run) == run else Path("runs") / f"shipped-{run}"
