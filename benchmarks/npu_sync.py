"""What a step of training and of answering would cost an NPU's host, counted on the simulated NPU.

    python benchmarks/npu_sync.py --json

Runs in a process of its own with ``tests/npusim`` on the path, so no NPU is needed and none is
used. The three stages of digits and an answer with a drawn picture are run on the device ``npu``:

- ``host_syncs_per_train_step``: times the host waits for the device inside an update, from the
  moment its data are there to the optimizer's step; the largest of the stages. What is logged every
  n steps is read between updates.
- ``host_syncs_per_token``: the same while an answer is chosen token by token, the prompt left out.
- ``ops_without_npu_kernel``: operators that real hardware would hand to the CPU, in training,
  answering and drawing.
- ``fused_calls``: calls of each fused operation per update of the multimodal stage.
- ``sim_overhead``: processor time of a simulated update over one of the CPU in the same process,
  taken in turns; the median.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from result_line import ROOT, print_line

WORKER = Path(__file__).with_name("npu_sync_worker.py")


def measure(steps: int, rounds: int) -> dict[str, object]:
    """Run the worker with the simulated NPU on its path."""
    folders = [str(ROOT / "tests" / "npusim"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(steps), str(rounds)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        message = f"The worker ended with {done.returncode}; what it said stands above."
        raise SystemExit(message)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line (always done)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--steps", type=int, default=12, help="updates of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs per device for the overhead")
    asked = parser.parse_args()
    measured = measure(asked.steps, asked.rounds)
    print_line("npu_sync", measured, store=asked.store, file="npu_sync")


if __name__ == "__main__":
    main()
