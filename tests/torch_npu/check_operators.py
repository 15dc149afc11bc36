"""The simulation's list of operators with a kernel is the one the wheel has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests/npusim/torch_npu/operators.txt"

if not LIST.is_file():
    sys.stdout.write("this project has no simulation to compare with\n")
    sys.exit(0)
command = [sys.executable, str(ROOT / "scripts/npu_operators.py"), "--check"]
done = subprocess.run(command, capture_output=True, text=True, check=False)
assert done.returncode == 0, done.stdout + done.stderr
title = LIST.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
sys.stdout.write(f"the same: {title}\n")
