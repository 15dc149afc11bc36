"""One JSON line per measurement: what was measured, on which machine, at which commit."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mllm_npu.evaluate.machine import describe_machine, list_versions

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")


def commit() -> str:
    """The commit that was measured, marked where files have changed since."""
    program = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(program, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def print_line(name: str, measured: Mapping[str, Any], *, store: bool, file: str) -> None:
    """Print a measurement as one JSON line, and append it to ``results/<file>.jsonl`` if asked.

    Args:
        name: of the benchmark.
        measured: figures; machine and versions are added where they are not among them.
        store: append it.
        file: name of the results file.
    """
    line = {
        "benchmark": name,
        **measured,
        "machine": measured.get("machine") or describe_machine(torch.device("cpu")),
        "versions": measured.get("versions") or list_versions(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(line))
    if store:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{file}.jsonl").open("a", encoding="utf-8") as results:
            results.write(json.dumps(line) + "\n")
