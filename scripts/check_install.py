"""See that the environment holds the pinned torch and no torchvision; else exit with 2."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def pinned_version(constraints: Path, name: str) -> str:
    """The version ``name`` is pinned to.

    Raises:
        ValueError: it is not pinned.
    """
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}=="):
            return line.partition("==")[2].strip()
    raise ValueError(f"{constraints.name} does not pin {name}. Add a line {name}==VERSION.")


def complaints(*, pinned: str, installed: str | None, has_torchvision: bool) -> list[str]:
    """What is wrong with the environment, one line each; empty where nothing is.

    Args:
        pinned: version of torch in constraints.txt.
        installed: version that is installed, with its local suffix ("2.13.0+cpu"), None for none.
        has_torchvision: whether a torchvision can be found.
    """
    found = []
    if installed is None:
        found.append("torch is not installed. Run make install.")
    elif installed.partition("+")[0] != pinned:
        found.append(
            f"torch {pinned} is pinned, {installed} is installed: another package replaced it. "
            "Remove .venv and run make install."
        )
    if has_torchvision:
        found.append(
            "torchvision is installed: nothing here needs it, and one built for another torch "
            "breaks transformers and diffusers. Run pip uninstall torchvision."
        )
    return found


def main() -> int:
    """Check this interpreter's environment."""
    try:
        installed = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    found = complaints(
        pinned=pinned_version(CONSTRAINTS, "torch"),
        installed=installed,
        has_torchvision=importlib.util.find_spec("torchvision") is not None,
    )
    if not found:
        # Imported only now: a torch that cannot be loaded fails here, with its own message.
        import torch  # noqa: PLC0415 - slow, and absent in the cases above

        sys.stdout.write(f"environment checked: torch {torch.__version__}\n")
    for line in found:
        sys.stderr.write(f"error: {line}\n")
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
