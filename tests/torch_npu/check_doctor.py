"""The doctor sees devices through the wheel, and that stand-ins compute and exchange nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def examine(*options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and rows of the command, by name."""
    command = [sys.executable, "-m", "mllm_npu.cli", "doctor", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    return done.returncode, {row["name"]: row for row in report["checks"]}


code, rows = examine("--burn-in", "1")
assert rows["torch with torch_npu"]["state"] == "good", rows
assert rows["device npu"]["found"] == "8 x Ascend910B3", rows
assert rows["env TASK_QUEUE_ENABLE"]["found"] == "not set, so 1", rows
assert code == 1
assert "no losses of such steps" in rows["burn-in"]["found"], rows["burn-in"]

code, rows = examine("--ranks", "2", "--timeout", "60")
assert code == 1
assert rows["ranks"]["found"].endswith("hccl"), rows["ranks"]
links = [row for name, row in rows.items() if name.startswith("link ")]
wrong = [row["name"] for row in links if row["found"].startswith("wrong values")]
assert len(links) == 6, rows
assert len(wrong) == 5, rows
sys.stdout.write(f"{rows['device npu']['found']}; rows without kernels: {', '.join(wrong)}\n")
