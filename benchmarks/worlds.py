"""Measure an embedded world from nothing: data, training, evaluation; one JSON line per seed.

    python benchmarks/worlds.py digits --seeds 0 1 2
    python benchmarks/worlds.py scenes --keep runs

Each seed is a fresh process and a fresh folder. The dated line is appended to
``benchmarks/results/<world>.jsonl`` with machine and commit unless ``--no-store`` is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from result_line import print_line

ROOT = Path(__file__).parents[1]
KEPT = ("machine", "versions", "choices", "stages", "evaluate_seconds")


def run_world(world: str, seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Make, train and evaluate one world with one seed.

    Returns:
        The figures of its report, and what they were measured on.

    Raises:
        subprocess.CalledProcessError: a command failed; its own message is on stderr.
    """
    data, name = folder / "data", f"{world}-seed{seed}"
    settings = [f"name={name}", f"world_dir={data}", f"output_dir={folder}", f"seed={seed}"]
    command(["data", world, "--out", str(data)])
    command(["train", f"experiment={world}", *settings, *overrides])
    command(["evaluate", str(folder / name)])
    report = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
    return {**report["figures"], **{key: report[key] for key in KEPT}}


def command(arguments: list[str]) -> None:
    """Run one command of the package in a process of its own; what it prints goes to stderr."""
    program = [sys.executable, "-m", "mllm_npu.cli", *arguments]
    subprocess.run(program, check=True, stdout=sys.stderr, cwd=ROOT)


def main() -> None:
    """Measure every seed that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("world", choices=["digits", "scenes"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--keep", type=Path, help="folder in which runs stay")
    parser.add_argument("--no-store", action="store_true", help="print only")
    parser.add_argument(
        "--json", action="store_true", help="kept for symmetry; JSON is all there is"
    )
    given, overrides = parser.parse_known_args()
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = (given.keep or Path(scratch)).resolve()
            measured = run_world(given.world, seed, folder, overrides)
        print_line(
            f"worlds {given.world}",
            {"seed": seed, **measured},
            store=not given.no_store,
            file=given.world,
        )


if __name__ == "__main__":
    main()
